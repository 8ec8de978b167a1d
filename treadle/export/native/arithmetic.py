"""Arithmetic that some processors lack, as LLVM text under the names that LLVM calls it by.

``fmaf``: the product of two floats is exact in f64. The sum is rounded to odd there, so that the
rounding to f32 is the only one that counts (Boldo and Melquiond, "Emulation of FMA and correctly
rounded sums: proved algorithms using rounding to odd", 2008).

``fma`` does the same in f64 on numbers scaled to where nothing overflows: with the product and the
sums as pairs (Dekker, Knuth), the smaller part rounded to odd; a result below the normal numbers is
rounded once more in whole numbers, which know what was cut off.

``fmod`` subtracts, bit by bit.
"""

from __future__ import annotations

_FMAF = """
define internal float @fmaf(float %a, float %b, float %c) noinline nounwind {
  %x = fpext float %a to double
  %y = fpext float %b to double
  %z = fpext float %c to double
  %p = fmul double %x, %y
  %s = call double @add_to_odd(double %p, double %z)
  %r = fptrunc double %s to float
  ret float %r
}
"""
_ODD = """
; a + b, exactly if possible and else the neighbour whose last bit is set.
define internal double @add_to_odd(double %a, double %b) alwaysinline nounwind {
  %s = fadd double %a, %b
  %b1 = fsub double %s, %a
  %a1 = fsub double %s, %b1
  %da = fsub double %a, %a1
  %db = fsub double %b, %b1
  %err = fadd double %da, %db
  %inexact = fcmp one double %err, 0.0
  %bits = bitcast double %s to i64
  %low = and i64 %bits, 1
  %even = icmp eq i64 %low, 0
  %up = fcmp ogt double %err, 0.0
  %positive = fcmp ogt double %s, 0.0
  %grows = icmp eq i1 %up, %positive
  %step = select i1 %grows, i64 1, i64 -1
  %moved = add i64 %bits, %step
  %moves = and i1 %inexact, %even
  %odd = select i1 %moves, i64 %moved, i64 %bits
  %r = bitcast i64 %odd to double
  ret double %r
}
"""
_FMA = """
declare i64 @llvm.ctlz.i64(i64, i1)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)

; Significand (from 1 up to 2, with the sign) and exponent of a finite number that is not 0.
define internal {double, i64} @significand(double %x) alwaysinline nounwind {
  %word = bitcast double %x to i64
  %exponent = lshr i64 %word, 52
  %field = and i64 %exponent, 2047
  %is_small = icmp eq i64 %field, 0
  %large = fmul double %x, 0x4350000000000000  ; 2**54
  %chosen = select i1 %is_small, double %large, double %x
  %less = select i1 %is_small, i64 -1077, i64 -1023
  %bits = bitcast double %chosen to i64
  %high = lshr i64 %bits, 52
  %its = and i64 %high, 2047
  %e = add i64 %its, %less
  %rest = and i64 %bits, -9218868437227405313  ; without the exponent
  %one = or i64 %rest, 4607182418800017408  ; 1.0
  %m = bitcast i64 %one to double
  %pair = insertvalue {double, i64} poison, double %m, 0
  %both = insertvalue {double, i64} %pair, i64 %e, 1
  ret {double, i64} %both
}

; The upper half of a significand.
define internal double @upper(double %x) alwaysinline nounwind {
  %t = fmul double %x, 0x41A0000002000000  ; 2**27 + 1
  %u = fsub double %t, %x
  %h = fsub double %t, %u
  ret double %h
}

; What rounding lost of the sum %s of %a and %b.
define internal double @lost(double %a, double %b, double %s) alwaysinline nounwind {
  %b1 = fsub double %s, %a
  %a1 = fsub double %s, %b1
  %da = fsub double %a, %a1
  %db = fsub double %b, %b1
  %err = fadd double %da, %db
  ret double %err
}

define internal double @fma(double %a, double %b, double %c) noinline nounwind {
entry:
  %product = fmul double %a, %b
  %aw = bitcast double %a to i64
  %bw = bitcast double %b to i64
  %cw = bitcast double %c to i64
  %a2 = shl i64 %aw, 1
  %b2 = shl i64 %bw, 1
  %c2 = shl i64 %cw, 1
  %a_odd = icmp uge i64 %a2, -9007199254740992  ; infinite, or no number
  %b_odd = icmp uge i64 %b2, -9007199254740992
  %c_odd = icmp uge i64 %c2, -9007199254740992
  %a_zero = icmp eq i64 %a2, 0
  %b_zero = icmp eq i64 %b2, 0
  %c_zero = icmp eq i64 %c2, 0
  %zero = or i1 %a_zero, %b_zero
  %odd = or i1 %a_odd, %b_odd
  %plain = or i1 %zero, %odd
  br i1 %plain, label %simple, label %look
simple:
  %sum = fadd double %product, %c
  ret double %sum
look:
  br i1 %c_odd, label %addend, label %further
addend:
  %twice = fadd double %c, %c
  ret double %twice
further:
  br i1 %c_zero, label %alone, label %scale
alone:
  ret double %product
scale:
  %am = call {double, i64} @significand(double %a)
  %bm = call {double, i64} @significand(double %b)
  %cm = call {double, i64} @significand(double %c)
  %x = extractvalue {double, i64} %am, 0
  %xe = extractvalue {double, i64} %am, 1
  %y = extractvalue {double, i64} %bm, 0
  %ye = extractvalue {double, i64} %bm, 1
  %z1 = extractvalue {double, i64} %cm, 0
  %ze = extractvalue {double, i64} %cm, 1
  %e = add i64 %xe, %ye
  %apart = sub i64 %ze, %e
  %most = call i64 @llvm.smin.i64(i64 %apart, i64 120)  ; beyond, the smaller only tips the scale
  %d = call i64 @llvm.smax.i64(i64 %most, i64 -120)
  %beyond = icmp sgt i64 %apart, 120
  %from_c = sub i64 %ze, %d
  %k = select i1 %beyond, i64 %from_c, i64 %e
  %z1w = bitcast double %z1 to i64
  %up = shl i64 %d, 52
  %zw = add i64 %z1w, %up
  %z = bitcast i64 %zw to double
  ; the product as %uh + %ul
  %uh = fmul double %x, %y
  %xh = call double @upper(double %x)
  %xl = fsub double %x, %xh
  %yh = call double @upper(double %y)
  %yl = fsub double %y, %yh
  %hh = fmul double %xh, %yh
  %hl = fmul double %xh, %yl
  %lh = fmul double %xl, %yh
  %ll = fmul double %xl, %yl
  %u1 = fsub double %hh, %uh
  %u2 = fadd double %u1, %hl
  %u3 = fadd double %u2, %lh
  %ul = fadd double %u3, %ll
  ; %uh + %ul + %z as %vh + %t
  %th = fadd double %z, %ul
  %tl = call double @lost(double %z, double %ul, double %th)
  %vh = fadd double %uh, %th
  %vl = call double @lost(double %uh, double %th, double %vh)
  %t = call double @add_to_odd(double %tl, double %vl)
  %s = fadd double %vh, %t
  %err = call double @lost(double %vh, double %t, double %s)
  %is_zero = fcmp oeq double %s, 0.0
  br i1 %is_zero, label %nothing, label %rescale
nothing:
  ret double %s
rescale:
  %sw = bitcast double %s to i64
  %sh = lshr i64 %sw, 52
  %field = and i64 %sh, 2047
  %new = add i64 %field, %k
  %is_large = icmp sgt i64 %new, 2046
  br i1 %is_large, label %overflow, label %fits
overflow:
  %sign_only = and i64 %sw, -9223372036854775808
  %infinite = or i64 %sign_only, 9218868437227405312
  %inf = bitcast i64 %infinite to double
  ret double %inf
fits:
  %is_normal = icmp sgt i64 %new, 0
  br i1 %is_normal, label %normal, label %tiny
normal:
  %kw = shl i64 %k, 52
  %nw = add i64 %sw, %kw
  %n = bitcast i64 %nw to double
  ret double %n
tiny:
  %frac = and i64 %sw, 4503599627370495
  %whole = or i64 %frac, 4503599627370496
  %fine = shl i64 %whole, 2
  %has_err = fcmp one double %err, 0.0
  %err_up = fcmp ogt double %err, 0.0
  %s_up = fcmp ogt double %s, 0.0
  %adds = icmp eq i1 %err_up, %s_up
  %one = select i1 %adds, i64 1, i64 -1
  %tip = select i1 %has_err, i64 %one, i64 0
  %exact = add i64 %fine, %tip
  %places = sub i64 3, %new
  %shift = call i64 @llvm.smin.i64(i64 %places, i64 60)
  %q = lshr i64 %exact, %shift
  %unit = shl i64 1, %shift
  %mask = sub i64 %unit, 1
  %rest = and i64 %exact, %mask
  %half = lshr i64 %unit, 1
  %above = icmp ugt i64 %rest, %half
  %tie = icmp eq i64 %rest, %half
  %low = trunc i64 %q to i1
  %tie_up = and i1 %tie, %low
  %rounds = or i1 %above, %tie_up
  %more = zext i1 %rounds to i64
  %made = add i64 %q, %more
  %sign = and i64 %sw, -9223372036854775808
  %rw = or i64 %made, %sign
  %r = bitcast i64 %rw to double
  ret double %r
}
"""
_FMOD = """
declare i64 @llvm.ctlz.i64(i64, i1)

; Exponent and whole significand of a finite number that is not 0.
define internal {i64, i64} @whole(i64 %word) alwaysinline nounwind {
  %high = lshr i64 %word, 52
  %field = and i64 %high, 2047
  %frac = and i64 %word, 4503599627370495
  %is_small = icmp eq i64 %field, 0
  %shifted = shl i64 %frac, 12
  %zeros = call i64 @llvm.ctlz.i64(i64 %shifted, i1 false)
  %small_e = sub i64 0, %zeros
  %by = add i64 %zeros, 1
  %by_safe = and i64 %by, 63
  %small = shl i64 %frac, %by_safe
  %large = or i64 %frac, 4503599627370496
  %e = select i1 %is_small, i64 %small_e, i64 %field
  %m = select i1 %is_small, i64 %small, i64 %large
  %pair = insertvalue {i64, i64} poison, i64 %e, 0
  %both = insertvalue {i64, i64} %pair, i64 %m, 1
  ret {i64, i64} %both
}

define internal double @fmod(double %x, double %y) noinline nounwind {
entry:
  %xw = bitcast double %x to i64
  %yw = bitcast double %y to i64
  %x2 = shl i64 %xw, 1
  %y2 = shl i64 %yw, 1
  %zero = icmp eq i64 %y2, 0
  %y_nan = icmp ugt i64 %y2, -9007199254740992
  %x_odd = icmp uge i64 %x2, -9007199254740992
  %some = or i1 %zero, %y_nan
  %none = or i1 %some, %x_odd
  br i1 %none, label %undefined, label %look
undefined:
  ret double 0x7FF8000000000000
look:
  %is_less = icmp ult i64 %x2, %y2
  br i1 %is_less, label %itself, label %begin
itself:
  ret double %x
begin:
  %xs = call {i64, i64} @whole(i64 %xw)
  %ys = call {i64, i64} @whole(i64 %yw)
  %xe = extractvalue {i64, i64} %xs, 0
  %xm = extractvalue {i64, i64} %xs, 1
  %ye = extractvalue {i64, i64} %ys, 0
  %ym = extractvalue {i64, i64} %ys, 1
  br label %step
step:
  %e = phi i64 [%xe, %begin], [%e1, %next]
  %m = phi i64 [%xm, %begin], [%m2, %next]
  %d = sub i64 %m, %ym
  %fits = icmp sge i64 %d, 0
  %r = select i1 %fits, i64 %d, i64 %m
  %is_done = icmp sle i64 %e, %ye
  br i1 %is_done, label %end, label %next
next:
  %e1 = sub i64 %e, 1
  %m2 = shl i64 %r, 1
  br label %step
end:
  %nothing = icmp eq i64 %r, 0
  %sign = and i64 %xw, -9223372036854775808
  br i1 %nothing, label %empty, label %normalise
empty:
  %ew = bitcast i64 %sign to double
  ret double %ew
normalise:
  %zeros = call i64 @llvm.ctlz.i64(i64 %r, i1 false)
  %by = sub i64 %zeros, 11
  %up = shl i64 %r, %by
  %ne = sub i64 %e, %by
  %is_normal = icmp sgt i64 %ne, 0
  br i1 %is_normal, label %normal, label %small
normal:
  %frac = and i64 %up, 4503599627370495
  %field = shl i64 %ne, 52
  %nw = or i64 %frac, %field
  %nsw = or i64 %nw, %sign
  %n = bitcast i64 %nsw to double
  ret double %n
small:
  %down = sub i64 1, %ne
  %sm = lshr i64 %up, %down
  %sw = or i64 %sm, %sign
  %s = bitcast i64 %sw to double
  ret double %s
}

define internal float @fmodf(float %x, float %y) noinline nounwind {
  %a = fpext float %x to double
  %b = fpext float %y to double
  %r = call double @fmod(double %a, double %b)
  %f = fptrunc double %r to float
  ret float %f
}
"""


def arithmetic(text: str, has_fma: bool) -> list[str]:
    """The modules that the module ``text`` needs beside it."""
    found = []
    if not has_fma and "@llvm.fma." in text:
        found += [_ODD, _FMAF, _FMA]
    if " frem " in text:
        found.append(_FMOD)
    return found


__all__ = ["arithmetic"]
