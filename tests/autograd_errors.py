"""What torch says where second derivatives fail."""

CUDNN = (
    "the derivative for '_cudnn_rnn_backward' is not implemented. Double backwards is not "
    "supported for CuDNN RNNs due to limitations in the CuDNN API. To run double backwards, "
    "please disable the CuDNN backend temporarily while running the forward pass of your RNN."
)
GRID_SAMPLE = "derivative for aten::grid_sampler_2d_backward is not implemented"
COMPILED = "torch.compile with aot_autograd does not currently support double backward"
