"""In which module each function and method of tensors is, for ``later.py`` to load it.

Written by ``python -m tools.public_names``; ``tests/test_import.py`` compares.
"""

from __future__ import annotations

FUNCTIONS = {
    "treadle.tensor.assembly": (
        "block_diag cartesian_prod column_stack combinations diag_embed diagflat diagonal_scatter "
        "dsplit hsplit narrow_copy put row_stack select_scatter slice_scatter split_with_sizes "
        "tril_indices triu_indices unravel_index vander vsplit"
    ),
    "treadle.tensor.closeness": "allclose equal isclose nan_to_num",
    "treadle.tensor.complex_numbers": (
        "adjoint angle complex conj conj_physical imag is_conj is_neg isreal polar real "
        "resolve_conj resolve_neg view_as_complex view_as_real"
    ),
    "treadle.tensor.contraction": "addmm bmm dot matmul mm mv outer",
    "treadle.tensor.control": "cond map scan while_loop",
    "treadle.tensor.copies": (
        "alias_copy as_strided_copy detach_copy diagonal_copy expand_copy permute_copy select_copy "
        "slice_copy split_copy split_with_sizes_copy squeeze_copy t_copy transpose_copy "
        "unbind_copy unfold_copy unsqueeze_copy view_as_complex_copy view_as_real_copy view_copy"
    ),
    "treadle.tensor.counting": (
        "bincount bucketize gcd histc lcm searchsorted unique unique_consecutive"
    ),
    "treadle.tensor.cumulative": (
        "cummax cummin cumprod cumsum cumulative_trapezoid diff logcumsumexp trapezoid"
    ),
    "treadle.tensor.einsum": "einsum inner kron tensordot",
    "treadle.tensor.exchange": "from_dlpack",
    "treadle.tensor.functions": (
        "acos acosh arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan atan2 "
        "atanh copysign cosh deg2rad digamma erfc erfinv exp2 fix float_power fmax fmin frac "
        "heaviside hypot i0 isneginf isposinf ldexp lgamma log10 log2 logaddexp logaddexp2 logit "
        "mvlgamma nextafter polygamma positive rad2deg rsqrt sgn signbit sinc sinh tan xlogy"
    ),
    "treadle.tensor.further": "frexp frombuffer histogram histogramdd igamma igammac pdist",
    "treadle.tensor.joining": (
        "cat concat concatenate diag dstack flip fliplr flipud hstack meshgrid pad repeat "
        "repeat_interleave roll rot90 stack tile tril triu vstack"
    ),
    "treadle.tensor.memory": "memory_by_owner memory_summary reset_peak_memory_stats",
    "treadle.tensor.movement": (
        "atleast_1d atleast_2d atleast_3d broadcast_tensors broadcast_to chunk diagonal flatten "
        "moveaxis movedim narrow permute ravel reshape select split squeeze swapaxes swapdims t "
        "tensor_split transpose unbind unflatten unsqueeze"
    ),
    "treadle.tensor.printing": "get_printoptions printoptions set_printoptions",
    "treadle.tensor.products": "addbmm addmv addr baddbmm chain_matmul cross ger vdot",
    "treadle.tensor.queries": (
        "broadcast_shapes can_cast finfo iinfo is_complex is_floating_point is_nonzero "
        "is_same_size is_signed isin result_type typename"
    ),
    "treadle.tensor.reduction": (
        "all amax amin any argmax argmin count_nonzero log_softmax logsumexp max mean min norm "
        "prod softmax std std_mean sum var var_mean"
    ),
    "treadle.tensor.scattering": (
        "index_put index_reduce nonzero_static scatter_reduce segment_reduce"
    ),
    "treadle.tensor.selection": (
        "argwhere gather index_add index_copy index_fill index_select masked_fill masked_scatter "
        "masked_select nonzero one_hot scatter scatter_add take take_along_dim where"
    ),
    "treadle.tensor.sequences": (
        "bartlett_window blackman_window gradient hamming_window hann_window kaiser_window "
        "logspace range scalar_tensor trapz"
    ),
    "treadle.tensor.sorting": (
        "argsort kthvalue median mode msort nanmedian nanquantile quantile sort topk"
    ),
    "treadle.tensor.spellings": (
        "BFloat16Tensor BoolTensor ByteTensor CharTensor DoubleTensor FloatTensor HalfTensor "
        "IntTensor LongTensor ShortTensor channels_last channels_last_3d clamp_max clamp_min clone "
        "contiguous_format detach fill greater greater_equal less less_equal memory_format "
        "not_equal preserve_format rsub set_default_tensor_type strided unsafe_chunk unsafe_split "
        "unsafe_split_with_sizes"
    ),
    "treadle.tensor.statistics": "aminmax cdist corrcoef cov dist nanmean nansum renorm trace",
    "treadle.tensor.strided": (
        "as_strided as_strided_scatter empty_permuted empty_strided resize_as_"
    ),
}

METHODS = {
    "treadle.tensor.absent": (
        "coalesce dense_dim dequantize indices int_repr q_scale sparse_dim sparse_mask to_dense "
        "to_sparse to_sparse_bsc to_sparse_bsr to_sparse_coo to_sparse_csc to_sparse_csr values"
    ),
    "treadle.tensor.assembly": (
        "diag_embed diagflat diagonal_scatter dsplit fill_diagonal_ hsplit narrow_copy put put_ "
        "select_scatter slice_scatter split_with_sizes tril_ triu_ unfold vsplit"
    ),
    "treadle.tensor.closeness": "allclose equal isclose nan_to_num nan_to_num_",
    "treadle.tensor.complex_numbers": (
        "H adjoint angle cdouble cfloat conj conj_physical conj_physical_ imag is_conj is_neg "
        "isreal mH real resolve_conj resolve_neg"
    ),
    "treadle.tensor.contraction": "__matmul__ __rmatmul__ addmm bmm dot matmul mm mv outer",
    "treadle.tensor.counting": "bincount gcd gcd_ histc lcm lcm_ unique unique_consecutive",
    "treadle.tensor.cumulative": "cummax cummin cumprod cumprod_ cumsum cumsum_ diff logcumsumexp",
    "treadle.tensor.einsum": "inner kron",
    "treadle.tensor.exchange": (
        "__array_priority__ __array_wrap__ __copy__ __dlpack__ __dlpack_device__"
    ),
    "treadle.tensor.functions": (
        "acos acos_ acosh acosh_ arccos arccos_ arccosh arccosh_ arcsin arcsin_ arcsinh arcsinh_ "
        "arctan arctan2 arctan2_ arctan_ arctanh arctanh_ asin asin_ asinh asinh_ atan atan2 "
        "atan2_ atan_ atanh atanh_ copysign copysign_ cosh cosh_ deg2rad deg2rad_ digamma digamma_ "
        "erfc erfc_ erfinv erfinv_ exp2 exp2_ fix fix_ float_power float_power_ fmax fmin frac "
        "frac_ heaviside heaviside_ hypot hypot_ i0 i0_ isneginf isposinf ldexp ldexp_ lgamma "
        "lgamma_ log10 log10_ log2 log2_ logaddexp logaddexp2 logit logit_ mvlgamma mvlgamma_ "
        "nextafter nextafter_ polygamma polygamma_ positive rad2deg rad2deg_ rsqrt rsqrt_ sgn sgn_ "
        "signbit sinc sinc_ sinh sinh_ tan tan_ xlogy xlogy_"
    ),
    "treadle.tensor.further": "frexp histogram igamma igamma_ igammac igammac_",
    "treadle.tensor.hooks": "register_hook register_post_accumulate_grad_hook",
    "treadle.tensor.indexing": "__getitem__ __setitem__ index_put index_put_",
    "treadle.tensor.joining": (
        "diag flip fliplr flipud repeat repeat_interleave roll rot90 tile tril triu"
    ),
    "treadle.tensor.movement": (
        "T broadcast_to chunk contiguous diagonal expand expand_as flatten is_contiguous mT "
        "moveaxis movedim narrow permute ravel reshape reshape_as select split squeeze "
        "storage_offset stride swapaxes swapdims t tensor_split transpose unbind unflatten "
        "unsqueeze view view_as"
    ),
    "treadle.tensor.printing": "__format__ __repr__",
    "treadle.tensor.products": (
        "addbmm addbmm_ addmm_ addmv addmv_ addr addr_ baddbmm baddbmm_ cross ger vdot"
    ),
    "treadle.tensor.queries": "is_complex is_nonzero is_same_size is_signed",
    "treadle.tensor.reduction": (
        "all amax amin any argmax argmin count_nonzero log_softmax logsumexp max mean min norm "
        "prod softmax std sum var"
    ),
    "treadle.tensor.scattering": (
        "index_reduce index_reduce_ nonzero_static scatter_reduce scatter_reduce_"
    ),
    "treadle.tensor.selection": (
        "argwhere gather index_add index_add_ index_copy index_copy_ index_fill index_fill_ "
        "index_select masked_fill masked_fill_ masked_scatter masked_scatter_ masked_select "
        "nonzero scatter scatter_ scatter_add scatter_add_ take take_along_dim"
    ),
    "treadle.tensor.sorting": (
        "argsort kthvalue median mode msort nanmedian nanquantile quantile sort topk"
    ),
    "treadle.tensor.spellings": (
        "__reversed__ apply_ byte char clamp_max_ clamp_min_ data_ptr eq_ ge_ get_device greater "
        "greater_ greater_equal greater_equal_ gt_ is_cpu is_cuda is_inference is_ipu is_meta "
        "is_mkldnn is_mps is_nested is_pinned is_quantized is_shared is_sparse is_sparse_csr "
        "is_vulkan is_xla is_xpu le_ less less_ less_equal less_equal_ lt_ map_ ne_ new not_equal "
        "not_equal_ pin_memory retains_grad share_memory_ short unsafe_chunk unsafe_split "
        "unsafe_split_with_sizes"
    ),
    "treadle.tensor.statistics": (
        "aminmax corrcoef cov dist nanmean nansum renorm renorm_ sum_to_size trace"
    ),
    "treadle.tensor.strided": (
        "as_strided as_strided_ as_strided_scatter dim_order is_set_to new_empty_strided resize "
        "resize_ resize_as resize_as_ set_"
    ),
    "treadle.tensor.turning": "squeeze_ swapaxes_ swapdims_ t_ transpose_ unsqueeze_",
}
