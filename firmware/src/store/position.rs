//! The position: two alternating slots in a file of its own, so that one is always whole.
//!
//! A slot is a block of 4 KiB (what a card writes at once, so that a torn write harms one slot): magic, sequence, length,
//! bytes, and the first 8 bytes of SHA-256 over all of these. The whole slot with the higher sequence counts. No rename.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use jukebox_core::library::Digest;

use super::{Recovered, Trouble, reject, sync_dir};

/// Longest position, in bytes.
pub const MAX_POSITION: usize = 1024;

const NAME: &str = "position";
const SLOT_BYTES: u64 = 4096;
/// Name and form of the file.
const MAGIC: [u8; 4] = *b"JPo1";
const HEAD: usize = 4 + 8 + 2;
const SUM: usize = 8;

pub(super) struct Position {
    file: File,
    sequence: u64,
}

impl Position {
    /// Opens or makes the file, and reads the newer whole slot.
    pub(super) fn open(dir: &Path, found: &mut Recovered) -> io::Result<Self> {
        let path = dir.join(NAME);
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open()?;
        let (whole, written) = slots(&file)?;
        if whole.is_none() && written {
            drop(file);
            found.rejected.push(reject(&path)?);
            file = open()?;
        }
        // Its full length from the start: a save changes no metadata.
        file.set_len(2 * SLOT_BYTES)?;
        file.sync_all()?;
        sync_dir(dir)?;
        let sequence = whole.as_ref().map_or(0, |(sequence, _)| *sequence);
        found.position = whole.map(|(_, bytes)| bytes);
        Ok(Self { file, sequence })
    }

    /// Writes the older slot; the position is durable when it returns.
    pub(super) fn save(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        if bytes.len() > MAX_POSITION {
            return Err(Trouble::TooLong(bytes.len()));
        }
        let sequence = self.sequence + 1;
        let mut slot = Vec::with_capacity(HEAD + bytes.len() + SUM);
        slot.extend_from_slice(&MAGIC);
        slot.extend_from_slice(&sequence.to_be_bytes());
        slot.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        slot.extend_from_slice(bytes);
        slot.extend_from_slice(&Digest::of(&slot).0[..SUM]);
        self.file.write_all_at(&slot, sequence % 2 * SLOT_BYTES).and_then(|()| self.file.sync_data()).map_err(|e| {
            match e.kind() {
                io::ErrorKind::StorageFull => Trouble::DiskFull,
                _ => Trouble::Card(e.to_string()),
            }
        })?;
        self.sequence = sequence;
        Ok(())
    }
}

/// Sequence and bytes.
type Slot = (u64, Vec<u8>);

/// The newer whole slot, and whether anything was ever written.
fn slots(file: &File) -> io::Result<(Option<Slot>, bool)> {
    let mut newest: Option<Slot> = None;
    let mut written = false;
    for n in 0..2 {
        let mut slot = vec![0; HEAD + MAX_POSITION + SUM];
        let mut filled = 0;
        while filled < slot.len() {
            match file.read_at(&mut slot[filled..], n * SLOT_BYTES + filled as u64)? {
                0 => break,
                more => filled += more,
            }
        }
        written |= slot.iter().any(|b| *b != 0);
        if let Some((sequence, bytes)) = parse(&slot)
            && newest.as_ref().is_none_or(|(s, _)| *s < sequence)
        {
            newest = Some((sequence, bytes.to_vec()));
        }
    }
    Ok((newest, written))
}

fn parse(slot: &[u8]) -> Option<(u64, &[u8])> {
    let (magic, rest) = slot.split_first_chunk::<4>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (bytes, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    let sum = rest.first_chunk::<SUM>()?;
    let whole = *magic == MAGIC && Digest::of(&slot[..HEAD + bytes.len()]).0.starts_with(sum);
    whole.then_some((u64::from_be_bytes(*sequence), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn one_torn_slot_costs_one_position_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let mut found = Recovered::default();
            let position = Position::open(dir.path(), &mut found).unwrap();
            (position, found)
        };
        assert!(open().1.position.is_none());
        for n in 1..=3u8 {
            open().0.save(&[n; 9]).unwrap();
            assert_eq!(open().1.position, Some(vec![n; 9]));
        }
        let path = dir.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        let mut torn = whole.clone();
        torn[SLOT_BYTES as usize + 20] ^= 1; // the third lies in the odd slot
        fs::write(&path, &torn).unwrap();
        assert_eq!(open().1.position, Some(vec![2; 9]));
        torn[20] ^= 1;
        fs::write(&path, &torn).unwrap();
        let (mut position, found) = open();
        assert_eq!((found.position, found.rejected.len()), (None, 1));
        assert_eq!(position.save(&[0; MAX_POSITION + 1]), Err(Trouble::TooLong(MAX_POSITION + 1)));
        position.save(&[0; MAX_POSITION]).unwrap();
        assert_eq!(open().1.position, Some(vec![0; MAX_POSITION]));
    }
}
