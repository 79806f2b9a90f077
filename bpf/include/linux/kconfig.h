/* The one header of the kernel's source that bcc includes by itself, ahead of
 * any text.  Our text needs nothing of the kernel's, so this folder is all the
 * kernel source that bcc gets to see (BCC_KERNEL_SOURCE). */
