"""Custom calls that are known by their names."""

from __future__ import annotations

import pytest

from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.library_calls import call_target, is_annotation
from memplan.compiler.hardware.work import Work, WorkCounter

GEMM = (
    'backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],'
    '"rhs_contracting_dimensions":["0"],"lhs_batch_dimensions":[],"rhs_batch_dimensions":[]},'
    '"precision_config":{"operand_precision":["HIGHEST","HIGHEST"]}}}'
)
BATCHED = (
    'backend_config={"dot_dimension_numbers":{"lhs_contracting_dimensions":["2"],"rhs_contracting_dimensions":["1"],'
    '"lhs_batch_dimensions":["0"],"rhs_batch_dimensions":["0"]}}'
)
ESCAPED = '"{\\"onednn_matmul_config\\":{\\"transpose_a\\":true}}"'
FMHA = (
    'backend_config={"cudnn_fmha_backend_config":{"intermediate_tensor_shape":{"element_type":"BF16",'
    '"dimensions":["2","6","32","48"]}}}'
)


def work_of(result: str, operands: str, target: str, rest: str = "") -> Work:
    shapes = operands.split()
    lines = [f"  p{k} = {shape} parameter({k})" for k, shape in enumerate(shapes)]
    names = ", ".join(f"p{k}" for k in range(len(shapes)))
    lines.append(f'  ROOT r = {result} custom-call({names}), custom_call_target="{target}"{", " if rest else ""}{rest}')
    graph = parse_hlo("HloModule m\n\nENTRY e {\n" + "\n".join(lines) + "\n}\n")
    computation = graph.entry_computation
    return WorkCounter(graph).of(computation, computation.root_instruction)


@pytest.mark.parametrize(
    ("result", "operands", "target", "rest", "flops"),
    [
        ("(f32[20,30], s8[1000])", "f32[20,40] f32[40,30]", "__cublas$gemm", GEMM, 2 * 20 * 30 * 40),
        ("f32[3,20,30]", "f32[3,20,40] f32[3,40,30]", "__cublas$lt$matmul", BATCHED, 2 * 3 * 20 * 30 * 40),
        ("f32[20,30]", "f32[20,40] f32[40,30]", "__cublas$gemm", "", 2 * 20 * 30 * 40),
        ("f32[20,30]", "f8e4m3fn[20,40] f8e4m3fn[40,30] f32[] f32[]", "__cublas$lt$matmul$f8", GEMM, 2 * 20 * 30 * 40),
        ("f32[20,30]", "f32[20,40] f32[40,30]", "__onednn$matmul", "", 2 * 20 * 30 * 40),
        ("f32[20,30]", "f32[40,20] f32[40,30]", "__onednn$matmul", f"backend_config={ESCAPED}", 2 * 20 * 30 * 40),
        (
            "f32[32,16]", "f8e4m3fn[32,64] f8e4m3fn[16,64] f8e8m0fnu[32,2] f8e8m0fnu[16,2]", "__op$block_scaled_dot",
            "", 2 * 32 * 16 * 64,
        ),
        ("f32[8]", "f32[8]", "mhlo.topk", "", 8 * 3),
        ("(f32[4,2], s32[4,2])", "f32[4,100]", "TopK", "", 400 * 7),
        ("(f32[64], u8[9])", "f32[64]", "__cub$DeviceRadixSort", "", 64 * 6),
        ("f32[2,32,32]", "f32[2,32,32]", "lapack_spotrf_ffi", "", 2 * 32**3 / 3),
        ("(f32[32,32], s32[32])", "f32[32,32]", "cusolver_getrf_ffi", "", 32**3 * 2 / 3),
        ("(f32[64,32], f32[32])", "f32[64,32]", "Qr", "", 2 * 32**2 * (64 - 32 / 3)),
        ("(f32[32,32], f32[32])", "f32[32,32]", "lapack_ssyevd_ffi", "", 9 * 32**3),
        ("f32[32,4]", "f32[32,32] f32[32,4]", "lapack_strsm_ffi", "", 32 * 32 * 4),
        ("f32[32,4]", "f32[32,32] f32[32,4]", "__cublas$triangularSolve", "", 32 * 32 * 4),
    ],
)  # fmt: skip
def test_operations(result: str, operands: str, target: str, rest: str, flops: float) -> None:
    assert work_of(result, operands, target, rest).total_flops == pytest.approx(flops)


def test_precision_of_a_product() -> None:
    (part,) = work_of("f32[20,30]", "f32[20,40] f32[40,30]", "__cublas$gemm", GEMM).matrix
    assert (part.precision, part.contracted, part.rows, part.columns) == ("highest", 40, 20, 30)


# The three of a forward convolution of images [2,9,9,4] by kernels [3,3,4,8], at its place in each call.
CONVOLUTION = "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f"


def test_convolutions_of_one_layer_are_alike() -> None:
    dense = "f32[2,9,9,4]", "f32[3,3,4,8]", "f32[2,9,9,8]"
    images, kernels, outputs = dense
    forward = work_of(f"({outputs}, u8[0])", f"{images} {kernels}", "__cudnn$convForward", CONVOLUTION)
    biased = work_of(
        f"({outputs}, u8[0])", f"{images} {kernels} f32[8]", "__cudnn$convBiasActivationForward", CONVOLUTION
    )
    to_images = work_of(f"({images}, u8[0])", f"{outputs} {kernels}", "__cudnn$convBackwardInput", CONVOLUTION)
    to_kernels = work_of(f"({kernels}, u8[0])", f"{images} {outputs}", "__cudnn$convBackwardFilter", CONVOLUTION)
    inner = 7 * 3 + 2 * 2  # positions of a window of 3 that meet 9 elements
    assert forward.total_flops == 2 * 2 * inner * inner * 4 * 8
    assert forward.total_flops == biased.total_flops == to_images.total_flops == to_kernels.total_flops


def test_a_vectorized_convolution_counts_all_features() -> None:
    vectors = work_of(
        "(s8[2,9,9,2,4], u8[0])", "s8[2,9,9,1,4] s8[3,3,1,4,8]", "__cudnn$convForward",
        "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f?_01i?o->b01f?",
    )  # fmt: skip
    dense = work_of("(s8[2,9,9,8], u8[0])", "s8[2,9,9,4] s8[3,3,4,8]", "__cudnn$convForward", CONVOLUTION)
    assert vectors.total_flops == dense.total_flops


def test_a_convolution_of_onednn() -> None:
    config = 'backend_config={"onednn_conv_config":{"kernel":{"filter":{"output_feature_dim":"4"}}}}'
    work = work_of("f32[2,9,9,8]", "f32[2,9,9,4] f32[3,3,4,8]", "__onednn$convolution", config)
    assert work.total_flops == 2 * 2 * 9 * 9 * 8 * 3 * 3 * 4


def test_attention() -> None:
    queries, keys = "bf16[2,6,32,16]", "bf16[2,6,48,16]"
    stated = work_of(queries, f"{queries} {keys} {keys}", "__cudnn$fmhaSoftmax", FMHA)
    unstated = work_of(queries, f"{queries} {keys} {keys}", "__cudnn$fmhaSoftmax")
    backward = work_of(queries, f"{queries} {keys} {keys}", "__cudnn$fmhaSoftmaxBackward", FMHA)
    weights = 2 * 6 * 32 * 48
    assert stated == unstated
    assert stated.matrix[0].flops == 2 * (2 * weights * 16)
    assert stated.transcendentals == weights
    assert backward.matrix[0].flops == 5 * (2 * weights * 16)


def test_elementwise_functions() -> None:
    assert work_of("f32[8,8]", "f32[8,8]", "mhlo.erf_inv") == Work(transcendentals=64.0)


def test_the_called_computation_of_an_unknown_call_counts() -> None:
    text = """
HloModule m
inner { x = f32[8] parameter(0) ROOT y = f32[8] add(x, x) }
ENTRY e { p = f32[8] parameter(0) ROOT r = f32[8] custom-call(p), custom_call_target="fused", called_computations={inner} }
"""
    graph = parse_hlo(text)
    root = graph.entry_computation.root_instruction
    assert WorkCounter(graph).of(graph.entry_computation, root) == Work(flops=8.0)
    assert call_target(root) == "fused"


def test_annotations_compute_nothing() -> None:
    assert is_annotation("Sharding")
    assert is_annotation("xla.sdy.FuncResultSharding")
    assert not is_annotation("tpu_custom_call")
