"""All operations, each dispatched to its implementation in plain torch or in Triton.

Each call chooses between the two (``_backend.py``). Related operations share a folder:
``reference.py`` has the plain torch functions, ``triton.py`` the kernels.
"""

from ._backend import dispatch
from .activations import reference as activations
from .adaptive import reference as adaptive
from .batch_norm import reference as batch_norm
from .cg import reference as cg
from .cg.state import CGState as CGState  # as in `cg/host.py`
from .layer_norm import reference as layer_norm
from .linear import reference as linear
from .lists import reference as lists
from .penalties import reference as penalties

bias_act_forward = dispatch(activations.bias_act_forward)
bias_act_backward = dispatch(activations.bias_act_backward)
bias_act_tangent = dispatch(activations.bias_act_tangent)
bias_act_curvature = dispatch(activations.bias_act_curvature)

adaptive_setup_ = dispatch(adaptive.adaptive_setup_)
average_squares_ = dispatch(adaptive.average_squares_)

batch_norm_forward = dispatch(batch_norm.batch_norm_forward)
batch_norm_backward = dispatch(batch_norm.batch_norm_backward)
batch_norm_tangent = dispatch(batch_norm.batch_norm_tangent)
batch_norm_curvature = dispatch(batch_norm.batch_norm_curvature)

partial_dot = dispatch(cg.partial_dot)
cg_update_ = dispatch(cg.cg_update_)
cg_scalars_ = dispatch(cg.cg_scalars_)
cg_direction_ = dispatch(cg.cg_direction_)

layer_norm_forward = dispatch(layer_norm.layer_norm_forward)
layer_norm_backward = dispatch(layer_norm.layer_norm_backward)
layer_norm_tangent = dispatch(layer_norm.layer_norm_tangent)
layer_norm_curvature = dispatch(layer_norm.layer_norm_curvature)

linear_tangent = dispatch(linear.linear_tangent)

gather = dispatch(lists.gather)
scatter = dispatch(lists.scatter)

diversity_forward = dispatch(penalties.diversity_forward)
diversity_backward = dispatch(penalties.diversity_backward)
orthonormal_product = dispatch(penalties.orthonormal_product)
