//! Titles between the music: every so many bytes a length (in 16 bytes) and `StreamTitle='..';` (the SHOUTcast protocol,
//! which Icecast speaks to whoever sends `Icy-MetaData: 1`).

use bytes::Bytes;

/// Takes titles out of a stream.
#[derive(Debug, Default)]
pub(super) struct Icy {
    /// Bytes of music between two titles; 0: none come.
    every: usize,
    /// Bytes of music until the next.
    left: usize,
    /// Bytes of a title still to come, and those that have.
    owed: usize,
    title: Vec<u8>,
}

impl Icy {
    pub(super) fn new(every: usize) -> Self {
        Self { every, left: every, ..Self::default() }
    }

    /// The music in `data`, and the title that ends in it, if one does.
    pub(super) fn strip(&mut self, mut data: Bytes) -> (Bytes, Option<String>) {
        if self.every == 0 || (self.owed == 0 && self.left > data.len()) {
            self.left = self.left.saturating_sub(data.len());
            return (data, None);
        }
        let (mut music, mut found) = (Vec::with_capacity(data.len()), None);
        while !data.is_empty() {
            if self.owed > 0 {
                let part = data.split_to(self.owed.min(data.len()));
                self.title.extend_from_slice(&part);
                self.owed -= part.len();
                if self.owed == 0 {
                    found = title(&std::mem::take(&mut self.title)).or(found);
                    self.left = self.every;
                }
            } else if self.left > 0 {
                let part = data.split_to(self.left.min(data.len()));
                music.extend_from_slice(&part);
                self.left -= part.len();
            } else {
                self.owed = usize::from(data.split_to(1)[0]) * 16;
                if self.owed == 0 {
                    self.left = self.every;
                }
            }
        }
        (music.into(), found)
    }
}

/// The text between `StreamTitle='` and `';`.
fn title(block: &[u8]) -> Option<String> {
    let text = text(block.split(|b| *b == 0).next()?);
    let rest = &text[text.find("StreamTitle='")? + "StreamTitle='".len()..];
    let end = rest.find("';").or_else(|| rest.rfind('\''))?;
    Some(rest[..end].to_owned())
}

/// UTF-8, or what was before it: Latin-1.
pub(super) fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().map(|b| char::from(*b)).collect(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &[u8]) -> Vec<u8> {
        let mut block = vec![text.len().div_ceil(16) as u8];
        block.extend_from_slice(text);
        block.resize(1 + text.len().div_ceil(16) * 16, 0);
        block
    }

    #[test]
    fn music_and_titles_are_told_apart_wherever_packets_end() {
        let music: Vec<u8> = (0..100).collect();
        let mut stream = music[..40].to_vec();
        stream.extend(block(b"StreamTitle='It's a - test';StreamUrl='';"));
        stream.extend_from_slice(&music[40..80]);
        stream.extend(block(b""));
        stream.extend_from_slice(&music[80..]);
        for size in 1..=stream.len() {
            let mut icy = Icy::new(40);
            let (mut out, mut titles) = (vec![], vec![]);
            for part in stream.chunks(size) {
                let (music, title) = icy.strip(Bytes::copy_from_slice(part));
                out.extend_from_slice(&music);
                titles.extend(title);
            }
            assert_eq!((out, titles), (music.clone(), vec!["It's a - test".to_owned()]), "in {size}s");
        }
        assert_eq!(Icy::new(0).strip(Bytes::from_static(b"\xff\xfb")).0, &b"\xff\xfb"[..]);
    }

    #[test]
    fn titles_of_any_kind() {
        assert_eq!(title(b"StreamTitle='caf\xe9';\0\0").as_deref(), Some("caf\u{e9}"));
        assert_eq!(title("StreamTitle='café';".as_bytes()).as_deref(), Some("café"));
        assert_eq!(title(b"StreamTitle='';").as_deref(), Some(""));
        assert_eq!(title(b"StreamTitle='cut off'").as_deref(), Some("cut off"));
        assert_eq!((title(b"StreamTitle='"), title(b"nothing")), (None, None));
    }
}
