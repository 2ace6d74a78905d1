"""`import caffe` finds paratrain here. Written for you by: python -m paratrain.as_caffe --install (--remove takes it away)"""

try:
    from paratrain.as_caffe import take_name
except ModuleNotFoundError as error:
    if error.name is None or error.name.split(".")[0] != "paratrain":
        raise
    raise ImportError(
        f"'import caffe' stands for paratrain here, which is not installed any more: delete {__file__}"
    ) from None

take_name()
