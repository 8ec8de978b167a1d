"""float16 on CPUs that cannot convert it (x86-64 without F16C): what LLVM then calls, as its text.

The names are those of the compiler's run-time library, which a Python process does not have.
"""

from __future__ import annotations

_TEXT = """
; Rounded to nearest, ties to even. Below 2**-14 the sum with 0.5 has a unit of 2**-24.
define weak half @__truncsfhf2(float %x) nounwind {
  %word = bitcast float %x to i32
  %high = lshr i32 %word, 16
  %sign = and i32 %high, 32768
  %abs = and i32 %word, 2147483647
  %magnitude = bitcast i32 %abs to float
  %shifted = fadd float %magnitude, 5.000000e-01
  %shifted_word = bitcast float %shifted to i32
  %small = sub i32 %shifted_word, 1056964608
  %unit = lshr i32 %abs, 13
  %odd = and i32 %unit, 1
  %biased = sub i32 %abs, 939524096
  %nearly = add i32 %biased, 4095
  %rounded = add i32 %nearly, %odd
  %normal = lshr i32 %rounded, 13
  %is_small = icmp ult i32 %abs, 947912704
  %finite = select i1 %is_small, i32 %small, i32 %normal
  %is_large = icmp uge i32 %abs, 1199570944
  %number = select i1 %is_large, i32 31744, i32 %finite
  %is_nan = icmp ugt i32 %abs, 2139095040
  %result = select i1 %is_nan, i32 32256, i32 %number
  %signed = or i32 %result, %sign
  %bits = trunc i32 %signed to i16
  %half = bitcast i16 %bits to half
  ret half %half
}

define weak float @__extendhfsf2(half %x) nounwind {
  %bits = bitcast half %x to i16
  %word = zext i16 %bits to i32
  %sign = and i32 %word, 32768
  %high = shl i32 %sign, 16
  %abs = and i32 %word, 32767
  %shifted = shl i32 %abs, 13
  %normal = add i32 %shifted, 939524096
  %special = add i32 %shifted, 1879048192
  %is_special = icmp uge i32 %abs, 31744
  %large = select i1 %is_special, i32 %special, i32 %normal
  %integer = uitofp i32 %abs to float
  %scaled = fmul float %integer, 0x3E70000000000000  ; 2**-24
  %small = bitcast float %scaled to i32
  %is_small = icmp ult i32 %abs, 1024
  %number = select i1 %is_small, i32 %small, i32 %large
  %is_nan = icmp ugt i32 %abs, 31744
  %quiet = or i32 %number, 4194304
  %result = select i1 %is_nan, i32 %quiet, i32 %number
  %signed = or i32 %result, %high
  %value = bitcast i32 %signed to float
  ret float %value
}
"""


def with_conversions(text: str, triple: str, features: str) -> str:
    """The module ``text`` with what it lacks to convert float16 on that CPU."""
    if "half" in text and triple.startswith("x86_64") and "+f16c" not in features:
        return text + _TEXT
    return text
