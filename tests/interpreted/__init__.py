"""The kernels without the compiler: how much of them do their interpreted runs reach?"""
