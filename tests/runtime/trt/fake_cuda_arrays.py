"""Views of a DeviceArray in other shapes, as decoders show their planes."""


class pitched:
    """The array's rows as (rows, pixels, channels), at the array's own pitch."""

    def __init__(self, array, shape):
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": "|u1", "data": (array.address, False), "version": 3,
            "strides": (array.row, shape[2], 1), "stream": array.stream,
        }  # fmt: skip
