"""Programs in the kernel: loading them, tying them to events, and letting go."""
