//! HE-AAC that does not say so: what its decoder needs to know hides in a fill element at the end of each frame
//! (ISO/IEC 14496-3, 4.4.2.7 and 4.5.2.8: `ID_FIL`, `count`, `EXT_SBR_DATA`). Played as AAC-LC it would be half of itself.

/// Of so many frames
pub(super) const LOOKED_AT: u32 = 16;
/// so many look like it before it is believed: chance gives one in forty.
pub(super) const BELIEVED: u32 = 12;

const ID_FIL: u32 = 6;
const ID_END: u32 = 7;
/// Extension types `EXT_SBR_DATA` and `EXT_SBR_DATA_CRC`.
const EXT_SBR: [u32; 2] = [13, 14];
/// A fill element has no more bytes.
const MOST: usize = 269;

/// Whether a frame ends with a fill element of spectral band replication. Looked for from the end, where nothing has to be
/// decoded to find it.
pub(super) fn has_sbr(frame: &[u8]) -> bool {
    let bits = |at: usize, n: usize| {
        (at..at + n).fold(0, |v, i| v << 1 | u32::from(frame.get(i / 8).copied().unwrap_or(0) >> (7 - i % 8) & 1))
    };
    let Some(last) = frame.iter().rposition(|b| *b != 0) else { return false };
    // Behind the end nothing but zeros up to the next byte.
    let one = last * 8 + 7 - frame[last].trailing_zeros() as usize;
    let Some(end) = (one + 1).checked_sub(3).filter(|&at| last + 1 == frame.len() && bits(at, 3) == ID_END) else {
        return false;
    };
    let fits = |head: usize, bytes: usize| {
        let Some(at) = end.checked_sub(head + 8 * bytes) else { return false };
        let count = bits(at + 3, 4) as usize;
        let whole = if count == 15 { 14 + bits(at + 7, 8) as usize } else { count };
        let wide = head == 15;
        bits(at, 3) == ID_FIL && whole == bytes && (count == 15) == wide && EXT_SBR.contains(&bits(at + head, 4))
    };
    (1..15).any(|bytes| fits(7, bytes)) || (14..=MOST).any(|bytes| fits(15, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits as bytes, with zeros up to the next.
    fn bytes(bits: &[(u32, usize)]) -> Vec<u8> {
        let all: Vec<u32> = bits.iter().flat_map(|&(v, n)| (0..n).rev().map(move |i| v >> i & 1)).collect();
        all.chunks(8).map(|c| c.iter().enumerate().fold(0, |b, (i, bit)| b | (*bit as u8) << (7 - i))).collect()
    }

    /// A frame of `noise` bits and, perhaps, a fill element of so many bytes of extension `kind`.
    fn frame(noise: usize, fill: Option<(u32, usize)>) -> Vec<u8> {
        let mut state = noise as u32 + 1;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 24 & 1
        };
        let mut bits: Vec<_> = (0..noise).map(|_| (random(), 1)).collect();
        if let Some((kind, bytes)) = fill {
            bits.push((ID_FIL, 3));
            if bytes < 15 {
                bits.push((bytes as u32, 4))
            } else {
                bits.extend([(15, 4), (bytes as u32 - 14, 8)])
            }
            bits.push((kind, 4));
            bits.extend((0..bytes * 8 - 4).map(|_| (random(), 1)));
        }
        bits.push((ID_END, 3));
        bytes(&bits)
    }

    #[test]
    fn frames_with_it_are_found_and_others_hardly_ever() {
        for noise in 100..400 {
            for size in [1, 2, 14, 15, 60, 200, 269] {
                assert!(has_sbr(&frame(noise, Some((13, size)))), "{noise} {size}");
                assert!(has_sbr(&frame(noise, Some((14, size)))), "{noise} {size}");
            }
        }
        let wrong = (1_000..3_000).filter(|&n| has_sbr(&frame(n, None)) || has_sbr(&frame(n, Some((1, 20))))).count();
        assert!(wrong < 2_000 / 10, "{wrong} of 2,000");
        assert!(!has_sbr(&[]) && !has_sbr(&[0; 100]) && !has_sbr(&[0xff; 3]));
    }
}
