//! The Huffman code of header texts, read four bits at a time.
//!
//! The code is canonical: the lengths of its words say everything.

use std::sync::OnceLock;

/// Length in bits of each byte's word.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// No byte is complete yet.
const NONE: u16 = u16::MAX;

/// What four bits do: the next node, and the byte they complete. A word is five bits at least, so it is never two.
#[derive(Clone, Copy)]
struct Step {
    node: u16,
    byte: u16,
    /// They lead nowhere: the end mark may not appear in a text.
    dead: bool,
}

struct Automaton {
    steps: Vec<[Step; 16]>,
    /// Whether a text may end here: the bits since the last byte are fewer than eight and all ones.
    ends: Vec<bool>,
}

/// One node of the code's tree: its two children, and the byte whose word ends in it.
#[derive(Clone, Copy)]
struct Node {
    next: [u16; 2],
    byte: u16,
    padding: bool,
}

fn tree() -> Vec<Node> {
    let blank = Node { next: [NONE; 2], byte: NONE, padding: false };
    let mut nodes = vec![Node { padding: true, ..blank }];
    let mut symbols: Vec<(u8, u16)> = LENGTHS.iter().zip(0..).map(|(length, byte)| (*length, byte)).collect();
    symbols.sort_unstable();
    let (mut word, mut before) = (0_u32, 0);
    for (length, byte) in symbols {
        word <<= length - before;
        before = length;
        let mut at = 0;
        for place in (0..length).rev() {
            let bit = usize::from(word >> place & 1 == 1);
            if nodes[at].next[bit] == NONE {
                let depth = length - place;
                nodes[at].next[bit] = u16::try_from(nodes.len()).unwrap_or(NONE);
                let padding = nodes[at].padding && bit == 1 && depth < 8;
                nodes.push(Node { padding, ..blank });
            }
            at = usize::from(nodes[at].next[bit]);
        }
        nodes[at].byte = byte;
        word += 1;
    }
    nodes
}

fn automaton() -> &'static Automaton {
    static BUILT: OnceLock<Automaton> = OnceLock::new();
    BUILT.get_or_init(|| {
        let nodes = tree();
        let step = |from: usize, bits: usize| {
            let mut step = Step { node: u16::try_from(from).unwrap_or(0), byte: NONE, dead: false };
            for place in (0..4).rev() {
                let next = nodes[usize::from(step.node)].next[bits >> place & 1];
                let Some(node) = nodes.get(usize::from(next)) else { return Step { dead: true, ..step } };
                step.node = next;
                if node.byte != NONE {
                    step.byte = node.byte;
                    step.node = 0;
                }
            }
            step
        };
        let steps = (0..nodes.len()).map(|from| std::array::from_fn(|bits| step(from, bits))).collect();
        Automaton { steps, ends: nodes.iter().map(|n| n.padding).collect() }
    })
}

/// Decodes a text; `None` when it is none, or longer than `most`.
pub(super) fn decode(bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    let automaton = automaton();
    let mut out = Vec::with_capacity((bytes.len() * 8 / 5).min(most));
    let mut node = 0_u16;
    for byte in bytes {
        for bits in [byte >> 4, byte & 0xf] {
            let step = automaton.steps.get(usize::from(node))?.get(usize::from(bits))?;
            if step.dead {
                return None;
            }
            if step.byte != NONE {
                if out.len() >= most {
                    return None;
                }
                out.push(u8::try_from(step.byte).ok()?);
            }
            node = step.node;
        }
    }
    automaton.ends.get(usize::from(node)).copied().unwrap_or(false).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The plain way round, from the lengths alone.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut symbols: Vec<(u8, usize)> = LENGTHS.iter().zip(0..).map(|(l, b)| (*l, b)).collect();
        symbols.sort_unstable();
        let mut words = [(0_u32, 0_u8); 256];
        let (mut word, mut before) = (0_u32, 0);
        for (length, byte) in symbols {
            word <<= length - before;
            before = length;
            words[byte] = (word, length);
            word += 1;
        }
        let mut bits = String::new();
        for byte in text {
            let (word, length) = words[usize::from(*byte)];
            bits += &format!("{word:0width$b}", width = usize::from(length));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        bits.as_bytes().chunks(8).map(|c| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 2).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decode(&encode(&text), 1000), Some(text));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes, 50);
        }
    }

    #[test]
    fn the_example_of_the_rfc() {
        let coded = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decode(&coded, 100).unwrap(), b"www.example.com");
        assert_eq!(decode(&coded, 14), None);
    }

    #[test]
    fn padding_is_ones_and_less_than_a_byte() {
        assert_eq!(decode(&[0x1f], 9).unwrap(), b"a");
        assert_eq!(decode(&[0x18], 9), None);
        assert_eq!(decode(&[0x1f, 0xff], 9), None);
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff], 9), None);
    }
}
