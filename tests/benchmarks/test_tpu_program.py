import pytest

from benchmarks import tpu_program

STEP = "jit(step)/shard_map"
FORWARD = f"{STEP}/jvp(DeepLab.coarse)/DeepLab._features/backbone/conv"
BACKWARD = f"{STEP}/transpose(jvp(DeepLab.coarse))/DeepLab._features/backbone"


def cycles(count):
  return f'backend_config={{"estimated_cycles":"{count}","bounds":["1"]}}'


def path(name):
  return f'metadata={{op_name="{name}" stack_frame_id=3}}'


# Cut from a program for v5e: long lines are as the compiler writes them.
TEXT = f"""HloModule jit_step, is_scheduled=true

%fused (p.0: bf16[8,9,9,3]) -> (f32[32], bf16[8,5,5,32]) {{
  %p.0 = bf16[8,9,9,3]{{0,3,2,1:T(4,128)(2,1)}} parameter(0)
  %c.1 = bf16[8,5,5,32]{{3,0,2,1}} convolution(%p.0, %k), window={{size=3x3}}, dim_labels=b01f_01io->b01f, {path(FORWARD + "/conv_general_dilated")}
  ROOT %t = (f32[32]{{0:T(128)}}, bf16[8,5,5,32]{{3,0,2,1}}) tuple(%r, %c.1)
}}

%apart (p.1: bf16[8,5,5,32]) -> f32[3,3,1,32] {{
  ROOT %c.2 = f32[3,3,1,32]{{3,2,1,0}} convolution(%p.1, %dy), dim_labels=f01b_i01o->01bf, batch_group_count=32, {path(BACKWARD + "/conv_general_dilated")}
}}

%body (p.2: (s32[], f32[4])) -> (s32[], f32[4]) {{
  %a = f32[4]{{0}} fusion(%x), kind=kLoop, calls=%apart, {path(BACKWARD + "/expand/conv_general_dilated")}, {cycles(10)}
  ROOT %psum.1 = f32[2,4]{{1,0:T(2,128)S(1)}} all-reduce(%a), channel_id=1, {path(STEP + "/psum")}
}}

%condition (p.3: (s32[], f32[4])) -> pred[] {{
  %end = s32[]{{:T(128)}} constant(7)
  ROOT %lt = pred[]{{:T(512)}} compare(%i, %end), direction=LT
}}

ENTRY %main.16 (x.1: bf16[8,9,9,3]) -> (f32[32], s32[]) {{
  %x.1 = bf16[8,9,9,3]{{0,3,2,1}} parameter(0)
  %copy.1 = bf16[8,9,9,3]{{0,3,2,1:T(4,128)(2,1)}} copy(%x.1), {path(f"{STEP}/jvp(DeepLab.coarse)/DeepLab._features/convert_element_type")}, {cycles(300)}
  %f = (f32[32]{{0:T(128)S(1)}}, bf16[8,5,5,32]{{3,0,2,1:T(8,128)(2,1)}}) fusion(%copy.1), kind=kOutput, calls=%fused, {path(FORWARD + "/conv_general_dilated")}, {cycles(2000)}
  %while.4 = (s32[]{{:T(128)}}, f32[4]{{0}}) while(%f), condition=%condition, body=%body, {path(STEP + "/while")}
  %psum.2 = (f32[32]{{0}}, u8[5]{{0}}) all-reduce(%f, %g), {path(STEP + "/psum")}
  %r.1 = f32[8,9,9]{{2,1,0}} fusion(%f), kind=kLoop, calls=%condition, {path(STEP + "/jvp()/reduce_max")}, {cycles(40)}
  %r.2 = f32[8,9,9]{{2,1,0}} fusion(%f), kind=kLoop, calls=%apart, {path(STEP + "/jvp()/resize/dot_general")}, {cycles(5)}
  %r.3 = f32[32]{{0}} fusion(%f), kind=kLoop, calls=%condition, {path(FORWARD + "/conv._normalize/statistics/reduce_sum")}, {cycles(9)}
  ROOT %u = f32[32]{{0}} add(%f, %f), {path(STEP + "/add")}, {cycles(1)}
}}
"""  # noqa: E501


def test_a_loop_counts_as_often_as_it_runs():
  program = tpu_program.Program(TEXT)
  assert program.cycles() == 300 + 2000 + 7 * 10 + 40 + 5 + 9 + 1
  assert not program.unknown_loops
  assert program.collectives() == {
    "all-reduce": {"count": 7 + 1, "bytes": 7 * 32 + 128 + 5}
  }


def test_a_loop_of_unknown_length_counts_once_and_is_told():
  program = tpu_program.Program(TEXT.replace("%end = s32[]", "%end = f32[]"))
  assert program.cycles() == 300 + 2000 + 10 + 40 + 5 + 9 + 1
  assert program.unknown_loops == 1
  known = 'while(%f), backend_config={"known_trip_count":{"n":"3"}}, '
  program = tpu_program.Program(TEXT.replace("while(%f), ", known))
  assert program.cycles() == 300 + 2000 + 3 * 10 + 40 + 5 + 9 + 1


def test_cycles_by_kind_look_into_what_is_fused():
  assert tpu_program.Program(TEXT).by_kind() == {
    "copies": 300,
    "convolution, forward": 2000,
    "depthwise, kernel gradient": 70,
    "loss": 40,
    "resize": 5,
    "norm statistics": 9,
    "update": 1,
  }


def test_cycles_by_layer_join_both_ways():
  assert tpu_program.Program(TEXT).by_layer() == {
    "image": 300,
    "backbone/conv": 2009,
    "backbone/expand": 70,
    "loss": 45,
    "update": 1,
  }


@pytest.mark.parametrize(
  "path, layer",
  [
    (f"{STEP}/jvp(M)/DeepLab._logits/head/aspp1/aspp1._up/mul", "head/aspp1"),
    (f"{STEP}/jvp(M)/DeepLab._logits/logits/logits._convolve/x", "logits"),
    (f"{STEP}/jvp(M)/while/body/closed_call/decoder/a/mul", "decoder/a"),
    (f"{STEP}/transpose(jvp(Hh,bhwc->bHwc))/dot_general", "loss"),
    ("", "update"),
  ],
)  # fmt: skip
def test_a_path_tells_the_layer(path, layer):
  assert tpu_program.layer(path) == layer


def test_other_text_is_refused():
  with pytest.raises(ValueError, match="no ENTRY"):
    tpu_program.Program("HloModule x\n")
