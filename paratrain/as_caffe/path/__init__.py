"""A folder for ``sys.path``, in which ``import caffe`` finds paratrain."""
