//! JSON in blocks of 64 bytes: in flow bytes of a value with brackets, out comes where its last
//! bracket closes.
//!
//! Which bytes of a block are quotes, backslashes or brackets are the bits of three words, and
//! which of these are within strings follows in a few operations on words, as in simdjson
//! (Langdale and Lemire, "Parsing Gigabytes of JSON per Second", section 3.1). That is half of what
//! a look at each string costs, and hardly a branch of it is mispredicted.

use super::json::EndOfValue;

/// A bit of a word each.
pub(super) const BLOCK: usize = 64;
/// Bytes of the first window, whose marks are made together, and of the largest: a value may end
/// soon.
const FIRST: usize = 4 * BLOCK;
const WINDOW: usize = 8 * BLOCK;
/// Bytes of which a mark is made at once.
const LANE: usize = 16;
/// Brackets differ in these bits. What else becomes `BRACKET` does not stand outside of strings.
const FOLD: u8 = 0x26;
const BRACKET: u8 = b'{' | FOLD;

/// What a bracket adds to the depth.
static STEPS: [i8; 256] = {
    let mut steps = [0; 256];
    (steps[b'{' as usize], steps[b'[' as usize]) = (1, 1);
    (steps[b'}' as usize], steps[b']' as usize]) = (-1, -1);
    steps
};

/// How whole blocks have ended.
pub(super) enum Reached {
    /// The value ends here.
    End(usize),
    /// It goes on.
    On,
    /// A backslash is outside of strings in the block that begins here or a byte later. Only within
    /// them does it mean anything: another must read this block.
    Odd,
}

/// Goes on through the whole blocks of `data`, in a value that has a bracket open.
pub(super) fn skip(data: &[u8], value: &mut EndOfValue) -> Reached {
    let mut size = FIRST;
    let mut folded = [0; WINDOW];
    let mut marks = [[0; WINDOW / LANE]; 3];
    // Whether the first byte of a block is escaped.
    let mut escaped = 0;
    loop {
        let rest = &data[value.at..];
        let window = &rest[..size.min(rest.len() / BLOCK * BLOCK)];
        if window.is_empty() {
            // A backslash is looked at again, with the byte behind it.
            value.at -= usize::from(escaped > 0);
            return Reached::On;
        }
        let folded = &mut folded[..window.len()];
        for (folded, byte) in folded.iter_mut().zip(window) {
            *folded = byte | FOLD;
        }
        let [quotes, backslashes, brackets] = marks
            .each_mut()
            .map(|marks| &mut marks[..window.len() / LANE]);
        mark(window, b'"', quotes);
        mark(window, b'\\', backslashes);
        mark(folded, BRACKET, brackets);
        for start in (0..window.len() / LANE).step_by(BLOCK / LANE) {
            let (mut quotes, backslashes) = (quotes[start], backslashes[start]);
            let was_escaped = escaped;
            if backslashes | escaped != 0 {
                quotes &= !escapes(backslashes, &mut escaped);
            }
            let before = 0_u64.wrapping_sub(value.in_string.into());
            let strings = prefix_xor(quotes) ^ before;
            if backslashes & !strings != 0 {
                value.at -= usize::from(was_escaped > 0);
                return Reached::Odd;
            }
            let mut outside = brackets[start] & !strings;
            while outside != 0 {
                let at = value.at + outside.trailing_zeros() as usize;
                let step = STEPS[usize::from(data[at])];
                value.depth = value.depth.wrapping_add_signed(step.into());
                if value.depth == 0 {
                    return Reached::End(at + 1);
                }
                outside &= outside - 1;
            }
            value.in_string = strings >> 63 == 1;
            value.at += BLOCK;
        }
        size = (2 * size).min(WINDOW);
    }
}

/// Goes on through the whole blocks of `data`, from `at` within a string: where it ends, or else where
/// to go on.
pub(super) fn skip_string(data: &[u8], mut at: usize) -> Result<usize, usize> {
    let mut size = BLOCK;
    let mut marks = [[0; FIRST / LANE]; 2];
    let mut escaped = 0;
    loop {
        let rest = &data[at..];
        let window = &rest[..size.min(rest.len() / BLOCK * BLOCK)];
        if window.is_empty() {
            // A backslash is looked at again, with the byte behind it.
            return Err(at - usize::from(escaped > 0));
        }
        let [quotes, backslashes] = marks
            .each_mut()
            .map(|marks| &mut marks[..window.len() / LANE]);
        mark(window, b'"', quotes);
        mark(window, b'\\', backslashes);
        for start in (0..window.len() / LANE).step_by(BLOCK / LANE) {
            let ends = quotes[start] & !escapes(backslashes[start], &mut escaped);
            if ends != 0 {
                return Ok(at + ends.trailing_zeros() as usize + 1);
            }
            at += BLOCK;
        }
        size = FIRST;
    }
}

/// Which of `bytes`, in whole blocks, are `wanted`: `marks` has a word for the 64 bytes from each
/// sixteenth on.
///
/// The order of its operations is what the compiler makes one comparison and one `pmovmskb` of; and
/// that a word carries over, which one made from the next block, keeps it from another way that
/// costs ten times as much.
#[inline(never)]
fn mark(bytes: &[u8], wanted: u8, marks: &mut [u64]) {
    let mut word = 0;
    let lanes = bytes.as_chunks::<LANE>().0;
    for (lane, mark) in lanes.iter().zip(marks).rev() {
        let ones: [u16; 16] = std::array::from_fn(|at| u16::from(lane[at] == wanted));
        let twos: [_; 8] = std::array::from_fn(|at| ones[2 * at] | ones[2 * at + 1] << 1);
        let fours: [_; 4] = std::array::from_fn(|at| twos[2 * at] | twos[2 * at + 1] << 2);
        let eights: [_; 2] = std::array::from_fn(|at| fours[2 * at] | fours[2 * at + 1] << 4);
        word = word << LANE | u64::from(eights[0] | eights[1] << 8);
        *mark = word;
    }
}

/// The bytes that a backslash escapes; `escaped` says it of the first, and then of the one behind
/// the last.
fn escapes(backslashes: u64, escaped: &mut u64) -> u64 {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let starts = backslashes & !*escaped;
    let behind = starts << 1 | *escaped;
    // A run that begins at an odd place: the addition carries through it.
    let odd = starts & !EVEN & !behind;
    let (sum, carried) = odd.overflowing_add(starts);
    *escaped = carried.into();
    (EVEN ^ sum << 1) & behind
}

/// For each bit whether the number of ones up to it is odd.
fn prefix_xor(mut word: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        word ^= word << shift;
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte by byte, as an encoder counts.
    fn expected(data: &[u8]) -> Option<usize> {
        let (mut depth, mut in_string, mut escaped) = (0, false, false);
        for (at, byte) in data.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                b'{' | b'[' if !in_string => depth += 1,
                b'}' | b']' if !in_string => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }

    #[test]
    fn blocks_end_where_bytes_do_whatever_they_are_and_wherever_they_are_cut() {
        let mut seed = 1_u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        // All that becomes a bracket when it is folded is among them, and more strings than not.
        let alphabet = b"\"\"\"\\{}[]:,Yy_\x7fa \xc3\xa9";
        let (mut ends, mut long) = (0, 0);
        for round in 0..2000 {
            let few = 4 + round % (alphabet.len() - 3);
            let mut data = b"[[[[[[[[[[[[{".to_vec();
            for _ in 0..random(700) {
                // Stretches of one kind, so that runs and long strings come up.
                let byte = alphabet[random(few)];
                data.resize(
                    data.len() + 1 + random(3) * random(6) / 9 * random(70),
                    byte,
                );
            }
            data.extend(b"]]]]]]]]]]]]]]]]\"]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]");
            let end = expected(&data);
            ends += usize::from(end.is_some());
            long += usize::from(end.is_some_and(|end| end > 3 * BLOCK));
            for cut in [0, random(data.len()), random(data.len()), data.len()] {
                let mut value = EndOfValue::default();
                let mut found = value.find(&data[..cut]).unwrap();
                if found.is_none() {
                    found = value.find(&data).unwrap();
                }
                assert_eq!(
                    found,
                    end,
                    "{:?} cut at {cut}",
                    String::from_utf8_lossy(&data)
                );
            }
        }
        assert!(ends > 500 && long > 100, "{ends} ends, {long} of them far");
    }
}
