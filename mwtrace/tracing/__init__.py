"""One process traced from the first look to the named site: the parts joined.

``session`` plans and opens windows, ``growth`` samples without probes, ``symbolize`` gives names,
``report`` concludes. This room knows the kernel side through ``probes``, memory through
``tracer``, and words through ``tell``; it must not know the daemon.
"""
