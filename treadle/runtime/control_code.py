"""Control flow inside of a tape: parts that are run again and again, as LLVM text.

It is a piece of the pool's code (``pool_code``), whose tape runner it calls.
"""

# A call of control flow, whose last argument is a description (``runtime/control.py`` makes it):
# 0 where the state's address is, 1 the number of places, 2 the places (row of the arguments,
# stride, shift, modulus, offset), 3 room for their addresses, 4 a part (tape, calls, patches and
# their number), 8 another one, 12 the place of the flag, 13 the most passes or -1, 14 and 15 what
# is copied before (row of the arguments, place, bytes), 16 and 17 what is copied afterwards, 18 the
# row of the count or -1, 19 whether the other part is a test.
# With -1 the flag chooses between the parts; otherwise the first one is run pass after pass, as
# long as the flag is set after the test, if there is one. In pass i a place is at
# row + (i + shift) % modulus * stride + offset.
CONTROL = """
declare ptr @memcpy(ptr, ptr, i64)

define internal i64 @word(ptr %at, i64 %index) alwaysinline {
  %place = getelementptr i64, ptr %at, i64 %index
  %value = load i64, ptr %place
  ret i64 %value
}

define internal void @resolve(ptr %told, ptr %rows, i64 %pass) {
entry:
  %count = call i64 @word(ptr %told, i64 1)
  %places_word = call i64 @word(ptr %told, i64 2)
  %places = inttoptr i64 %places_word to ptr
  %found_word = call i64 @word(ptr %told, i64 3)
  %found = inttoptr i64 %found_word to ptr
  br label %look
look:
  %index = phi i64 [0, %entry], [%next, %one]
  %more = icmp slt i64 %index, %count
  br i1 %more, label %one, label %leave
one:
  %next = add i64 %index, 1
  %skip = mul i64 %index, 5
  %place = getelementptr i64, ptr %places, i64 %skip
  %row = call i64 @word(ptr %place, i64 0)
  %stride = call i64 @word(ptr %place, i64 1)
  %shift = call i64 @word(ptr %place, i64 2)
  %modulus = call i64 @word(ptr %place, i64 3)
  %offset = call i64 @word(ptr %place, i64 4)
  %base = call i64 @word(ptr %rows, i64 %row)
  %shifted = add i64 %pass, %shift
  %turn = urem i64 %shifted, %modulus
  %far = mul i64 %turn, %stride
  %there = add i64 %base, %far
  %address = add i64 %there, %offset
  %at = getelementptr i64, ptr %found, i64 %index
  store i64 %address, ptr %at
  br label %look
leave:
  ret void
}

define internal i32 @run_part(ptr %told, i64 %which) {
entry:
  %part = getelementptr i64, ptr %told, i64 %which
  %tape_word = call i64 @word(ptr %part, i64 0)
  %tape = inttoptr i64 %tape_word to ptr
  %calls = call i64 @word(ptr %part, i64 1)
  %patches_word = call i64 @word(ptr %part, i64 2)
  %patches = inttoptr i64 %patches_word to ptr
  %count = call i64 @word(ptr %part, i64 3)
  %found_word = call i64 @word(ptr %told, i64 3)
  %found = inttoptr i64 %found_word to ptr
  br label %look
look:
  %index = phi i64 [0, %entry], [%next, %one]
  %more = icmp slt i64 %index, %count
  br i1 %more, label %one, label %run
one:
  %next = add i64 %index, 1
  %skip = mul i64 %index, 3
  %patch = getelementptr i64, ptr %patches, i64 %skip
  %position = call i64 @word(ptr %patch, i64 0)
  %place = call i64 @word(ptr %patch, i64 1)
  %offset = call i64 @word(ptr %patch, i64 2)
  %base = call i64 @word(ptr %found, i64 %place)
  %address = add i64 %base, %offset
  %at = getelementptr i64, ptr %tape, i64 %position
  store i64 %address, ptr %at
  br label %look
run:
  %cell_word = call i64 @word(ptr %told, i64 0)
  %cell = inttoptr i64 %cell_word to ptr
  %state = load ptr, ptr %cell
  %failed = call i64 @run_calls(ptr %state, ptr %tape, i64 %calls, ptr null)
  %code = trunc i64 %failed to i32
  ret i32 %code
}

define internal void @copies(ptr %told, ptr %rows, i64 %which) {
entry:
  %here = getelementptr i64, ptr %told, i64 %which
  %count = call i64 @word(ptr %here, i64 0)
  %list_word = call i64 @word(ptr %here, i64 1)
  %list = inttoptr i64 %list_word to ptr
  %found_word = call i64 @word(ptr %told, i64 3)
  %found = inttoptr i64 %found_word to ptr
  br label %look
look:
  %index = phi i64 [0, %entry], [%next, %one]
  %more = icmp slt i64 %index, %count
  br i1 %more, label %one, label %leave
one:
  %next = add i64 %index, 1
  %skip = mul i64 %index, 3
  %copy = getelementptr i64, ptr %list, i64 %skip
  %row = call i64 @word(ptr %copy, i64 0)
  %place = call i64 @word(ptr %copy, i64 1)
  %bytes = call i64 @word(ptr %copy, i64 2)
  %to_word = call i64 @word(ptr %rows, i64 %row)
  %from_word = call i64 @word(ptr %found, i64 %place)
  %to = inttoptr i64 %to_word to ptr
  %from = inttoptr i64 %from_word to ptr
  %same = call ptr @memcpy(ptr %to, ptr %from, i64 %bytes)
  br label %look
leave:
  ret void
}

define internal i1 @flag(ptr %told) {
  %place = call i64 @word(ptr %told, i64 12)
  %found_word = call i64 @word(ptr %told, i64 3)
  %found = inttoptr i64 %found_word to ptr
  %address = call i64 @word(ptr %found, i64 %place)
  %at = inttoptr i64 %address to ptr
  %byte = load i8, ptr %at
  %is_set = icmp ne i8 %byte, 0
  ret i1 %is_set
}

define i32 @treadle_pool_control(ptr %rows, i64 %begin, i64 %end, i64 %thread) nounwind {
entry:
  %count_at = getelementptr i64, ptr %rows, i64 -3
  %count = load i64, ptr %count_at
  %last = sub i64 %count, 1
  %told_word = call i64 @word(ptr %rows, i64 %last)
  %told = inttoptr i64 %told_word to ptr
  %most = call i64 @word(ptr %told, i64 13)
  %has_test_word = call i64 @word(ptr %told, i64 19)
  %has_test = icmp ne i64 %has_test_word, 0
  call void @resolve(ptr %told, ptr %rows, i64 0)
  call void @copies(ptr %told, ptr %rows, i64 14)
  %is_choice = icmp slt i64 %most, 0
  br i1 %is_choice, label %choose, label %look
choose:
  %is_first = call i1 @flag(ptr %told)
  %which = select i1 %is_first, i64 4, i64 8
  %choice_code = call i32 @run_part(ptr %told, i64 %which)
  ret i32 %choice_code
look:
  %pass = phi i64 [0, %entry], [%next, %again]
  %more = icmp slt i64 %pass, %most
  br i1 %more, label %test, label %done
test:
  br i1 %has_test, label %ask, label %body
ask:
  %test_code = call i32 @run_part(ptr %told, i64 8)
  %is_good = icmp eq i32 %test_code, 0
  br i1 %is_good, label %answer, label %failed
answer:
  %goes_on = call i1 @flag(ptr %told)
  br i1 %goes_on, label %body, label %done
body:
  %code = call i32 @run_part(ptr %told, i64 4)
  %went_well = icmp eq i32 %code, 0
  br i1 %went_well, label %again, label %failed
again:
  %next = add i64 %pass, 1
  call void @resolve(ptr %told, ptr %rows, i64 %next)
  br label %look
failed:
  %bad = phi i32 [%test_code, %ask], [%code, %body]
  ret i32 %bad
done:
  call void @copies(ptr %told, ptr %rows, i64 16)
  %counted = call i64 @word(ptr %told, i64 18)
  %is_counted = icmp sge i64 %counted, 0
  br i1 %is_counted, label %tell, label %leave
tell:
  %tell_word = call i64 @word(ptr %rows, i64 %counted)
  %tell_at = inttoptr i64 %tell_word to ptr
  store i64 %pass, ptr %tell_at
  br label %leave
leave:
  ret i32 0
}
"""
