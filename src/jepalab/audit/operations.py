"""What the functions of torch do to content, by name: the tables the audit reads a step with."""

from __future__ import annotations

from typing import no_type_check


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Functions of two sides that say by themselves what they are: name -> (prediction's, target's) position or keyword.
LOSSES = {
    **dict.fromkeys(
        words(
            "mse_loss l1_loss smooth_l1_loss huber_loss cross_entropy nll_loss kl_div binary_cross_entropy "
            "binary_cross_entropy_with_logits gaussian_nll_loss poisson_nll_loss soft_margin_loss multi_margin_loss "
            "multilabel_margin_loss multilabel_soft_margin_loss hinge_embedding_loss"
        ),
        (("0", "input"), ("1", "target")),
    ),
    "ctc_loss": (("0", "log_probs"), ("1", "targets")),
    "cosine_similarity": (("0", "x1"), ("1", "x2")),
    "pairwise_distance": (("0", "x1"), ("1", "x2")),
    "cosine_embedding_loss": (("0", "input1"), ("1", "input2")),
    "triplet_margin_loss": (("0", "anchor"), ("1", "positive")),
    "triplet_margin_with_distance_loss": (("0", "anchor"), ("1", "positive")),
    "margin_ranking_loss": (("0", "input1"), ("1", "input2")),
    "cdist": (("0", "x1"), ("1", "x2")),
    "dist": (("0", "input"), ("1", "other")),
    "_kl_divergence": (("0", "p"), ("1", "q")),
}

# Those that compare a distribution over classes with a class or another distribution.
CLASSIFYING = words(
    "cross_entropy nll_loss kl_div binary_cross_entropy binary_cross_entropy_with_logits ctc_loss multi_margin_loss "
    "soft_margin_loss multilabel_margin_loss multilabel_soft_margin_loss"
)
CLASS_INDEX = frozenset(("cross_entropy", "nll_loss"))  # their target is an index into the prediction's axis 1
CONTRASTING = frozenset(("cosine_embedding_loss", "triplet_margin_loss", "triplet_margin_with_distance_loss"))

# Linear in what they read: a sum seen through them is still a sum of terms.
LAYOUT = words(
    "view reshape view_as reshape_as flatten unflatten permute transpose swapaxes swapdims movedim moveaxis t T mT "
    "H mH "
    "adjoint squeeze unsqueeze expand expand_as contiguous clone detach alias data requires_grad_ to type type_as "
    "float double half bfloat16 long int cpu cuda ravel repeat repeat_interleave tile roll flip broadcast_to "
    "broadcast_tensors atleast_1d atleast_2d atleast_3d unfold fold pad as_strided real imag view_as_real "
    "view_as_complex rot90 pixel_shuffle pixel_unshuffle channel_shuffle block_diag diag diagonal tril triu "
    "retain_grad _to_copy resolve_conj resolve_neg pin_memory im2col col2im record_stream"
)
SELECTION = words(
    "getitem gather index_select masked_select take_along_dim take narrow select chunk split unbind tensor_split "
    "hsplit vsplit dsplit unsafe_chunk unsafe_split split_with_sizes index_fill masked_fill where index_put scatter "
    "scatter_add scatter_reduce index_add index_copy masked_scatter setitem select_scatter slice_scatter "
    "diagonal_scatter nonzero"
)
REDUCTION = words("sum mean nansum nanmean")
LINEAR = (
    LAYOUT
    | SELECTION
    | REDUCTION
    | words(
        "add sub rsub neg cat stack concat concatenate hstack vstack dstack cumsum lerp addcmul addcdiv avg_pool1d "
        "avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d interpolate upsample "
        "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout einsum_sum trace nan_to_num block_mean "
        "sum_to_size positive pos mean_over conj sub_ deg2rad"
    )
)
ADDITIVE = frozenset(("add", "sub", "rsub", "lerp", "addcmul", "addcdiv"))
JOINING = words("cat stack concat concatenate hstack vstack dstack")
PRODUCT = frozenset(("mul", "multiply", "div", "true_divide", "divide", "rdiv", "rtruediv", "floor_divide"))
QUOTIENT = frozenset(("div", "true_divide", "divide", "floor_divide"))
MATRIX_PRODUCT = words("matmul mm bmm einsum dot vdot inner tensordot mv baddbmm addmm outer chain_matmul vecdot")
# Reductions after which what was compared has become a distance or a score.
DISTANCE = words(
    "sum mean norm vector_norm linalg_norm logsumexp cosine_similarity pairwise_distance cdist matmul mm bmm einsum "
    "dot "
    "linalg_vector_norm nansum vecdot"
)
SOFTMAX = words("softmax log_softmax logsumexp sigmoid logsigmoid log exp softplus cross_entropy logaddexp")

# Not linear and without parameters: what passes them from the raw input is a hand-made feature of it.
FIXED = words(
    "abs absolute sqrt rsqrt square pow log log2 log10 log1p exp exp2 expm1 sin cos tan asin acos atan atan2 arctan2 "
    "sinh cosh tanh sigmoid sign sgn round floor ceil trunc fix frac histc histogram bincount bucketize searchsorted "
    "stft istft fft_fft fft_fft2 fft_fftn fft_rfft fft_rfft2 fft_rfftn fft_ifft fft_ifft2 softmax log_softmax relu "
    "gelu silu max_pool1d max_pool2d max_pool3d norm vector_norm linalg_norm linalg_vector_norm sort topk median "
    "mode cummax cumprod prod angle hypot reciprocal var std fmod remainder quantile kthvalue outside"
)
REDUCING = words("softmax log_softmax norm vector_norm sort topk median mode cumprod prod var std quantile kthvalue")
DISCRETE = words(
    "argmax argmin argsort round floor ceil trunc sign bucketize searchsorted one_hot eq ne lt gt le ge logical_and "
    "logical_or logical_not logical_xor isnan isfinite isinf isin bitwise_and bitwise_or bitwise_not bitwise_xor and "
    "or xor invert multinomial nonzero unique histc bincount"
)

TURNING = words("t T mT H mH adjoint transpose swapaxes swapdims permute")
LENGTH = words("pow square abs norm vector_norm linalg_norm linalg_vector_norm")
LOOKUP = words("embedding getitem index_select gather take_along_dim")
CODING = words("argmax argmin round floor ceil trunc sign one_hot bucketize")

# Random numbers. The first never take content from their argument; the second do, where there is any.
NOISE = words("randn rand randn_like rand_like normal_ uniform_ exponential_ log_normal_ cauchy_ gumbel trunc_normal_")
CHANCE = words("randint randperm randint_like random_ bernoulli_ geometric_")  # masks, indices: no content
SAMPLING = words("normal bernoulli multinomial poisson _standard_gamma _sample_dirichlet binomial")
CONSTANT = words(
    "zeros ones empty full zeros_like ones_like empty_like full_like new_zeros new_ones new_empty new_full arange "
    "linspace logspace eye zero_ fill_ new_tensor tril_indices triu_indices scalar_tensor hann_window hamming_window "
    "cartesian_prod empty_strided"
)
# Each tensor that comes out is made of the one at the same place among the arguments.
ELEMENTWISE_OUTPUTS = words("broadcast_tensors atleast_1d atleast_2d atleast_3d meshgrid")
# Their second tensor gives a shape or a type, but no content.
SHAPED_LIKE = words("expand_as view_as reshape_as type_as to")
# Tensors come out of them, but no content: sizes, devices, gradients kept from earlier.
IGNORED = words("grad size shape stride")

_PLAIN = {
    "iadd": "add", "radd": "add", "isub": "sub", "rsub": "rsub", "imul": "mul", "rmul": "mul", "itruediv": "div",
    "truediv": "div", "rtruediv": "rdiv", "rdiv": "rdiv", "idiv": "div", "ipow": "pow", "rpow": "pow",
    "multiply": "mul",
    "true_divide": "div", "divide": "div", "subtract": "sub", "negative": "neg", "rmatmul": "matmul",
    "imatmul": "matmul", "floordiv": "floor_divide", "ifloordiv": "floor_divide", "mod": "remainder",
    "iand": "and", "ior": "or", "absolute": "abs", "index": "getitem", "greater": "gt", "less": "lt",
    "greater_equal": "ge", "less_equal": "le", "not_equal": "ne", "arctan2": "atan2", "concat": "cat",
    "concatenate": "cat", "pos": "positive", "rshift": "shift", "index_put_impl": "index_put", "sub_": "sub",
}  # fmt: skip
_KEPT = NOISE | CHANCE | CONSTANT | {"requires_grad_", "_kl_divergence", "_standard_gamma", "_sample_dirichlet"}


@no_type_check
def plain_name(name: str, owner: str = "") -> str:
    """One name for all the ways to write an operation: `__radd__`, `add_` and `add` are "add".

    owner  the attribute's name where `name` is the `__get__` of a property of tensors.
    """
    if name == "__get__":
        return owner
    name = name.removeprefix("__").removesuffix("__") if name.startswith("__") else name
    if name not in _KEPT:
        name = name.rstrip("_") or name
    return _PLAIN.get(name, name)
