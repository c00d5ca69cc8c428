//! Which objects are here, and which go first when room is needed: those least likely to be played.
//!
//! *Place*: where the track that an object belongs to stands in the queue, and behind it in the fallback. The order in which
//! objects go: of tracks that are not queued before those that are; originals before smaller renditions; far places before
//! near ones; long unused ones before others. A new object pushes out only what goes before itself, so that an original never
//! costs a small copy of what is queued. *Spare*: a few objects in memory, of what plays now and next, while the card takes
//! nothing.

use std::collections::HashMap;

use bytes::Bytes;
use jukebox_core::library::Digest;
use jukebox_core::planner::{Keep, Tier};

/// What a file occupies at least, in bytes.
pub(super) const BLOCK: u64 = 4096;
/// Most bytes of the spare: a quarter of an hour of the small rendition, or half a minute of an original.
const SPARE: usize = 4 << 20;
/// Tracks of which the spare holds something: what plays, and what comes next.
const SPARE_PLACES: u16 = 2;
/// No place.
const NOWHERE: u16 = u16::MAX;

/// An object on the card. 12 bytes, because a card holds a hundred thousand of them.
#[derive(Clone, Copy)]
struct Used {
    /// When it was used last, by the table's clock.
    at: u32,
    /// Of which track; 0: nobody has told.
    track: u32,
    blocks: u16,
    tier: Tier,
}

/// An object in memory.
struct Spare {
    digest: Digest,
    bytes: Bytes,
    keep: Keep,
    read: bool,
}

/// What is known of all objects.
#[derive(Default)]
pub(super) struct Table {
    files: HashMap<Digest, Used>,
    places: HashMap<u32, u16>,
    spare: Vec<Spare>,
    /// Bytes of all files, in whole blocks.
    bytes: u64,
    clock: u32,
    /// Names of temporary files.
    temporary: u64,
}

/// When an object goes: the larger the sooner.
type Order = u32;

/// The part of a digest that names a track here. Two tracks of the same name are kept a little longer, nothing else.
fn name(track: &Digest) -> u32 {
    u32::from_be_bytes([track.0[0], track.0[1], track.0[2], track.0[3]]).max(1)
}

impl Table {
    /// A file that was found on the card, in the order of their times. Until it is asked for, its size tells what it is: four
    /// seconds of `opus-32` have 16 KB, of `opus-96` 48 KB.
    pub(super) fn found(&mut self, digest: Digest, length: u64) {
        let tier = match length {
            0..28_000 => Tier::Small,
            28_000..128_000 => Tier::Middle,
            _ => Tier::Original,
        };
        self.insert(digest, length, 0, tier);
    }

    /// An object is on the card.
    pub(super) fn stored(&mut self, digest: Digest, length: u64, keep: Keep) {
        self.insert(digest, length, keep.track.map_or(0, |t| name(&t)), keep.tier);
    }

    fn insert(&mut self, digest: Digest, length: u64, track: u32, tier: Tier) {
        self.clock += 1;
        let blocks = length.div_ceil(BLOCK).min(u16::MAX.into()) as u16;
        if let Some(old) = self.files.insert(digest, Used { at: self.clock, track, blocks, tier }) {
            self.bytes -= u64::from(old.blocks) * BLOCK;
        }
        self.bytes += u64::from(blocks) * BLOCK;
    }

    /// Count of objects on the card, and their bytes in whole blocks.
    pub(super) fn count(&self) -> (usize, u64) {
        (self.files.len(), self.bytes)
    }

    /// Whether the object is here.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.files.contains_key(digest) || self.spare.iter().any(|s| s.digest == *digest)
    }

    /// The object is used; whether it is on the card.
    pub(super) fn touch(&mut self, digest: &Digest) -> bool {
        self.clock += 1;
        self.files.get_mut(digest).map(|used| used.at = self.clock).is_some()
    }

    /// What the object is for is known, perhaps anew.
    pub(super) fn belongs(&mut self, digest: &Digest, keep: Keep) {
        if let (Some(used), Some(track)) = (self.files.get_mut(digest), keep.track) {
            (used.track, used.tier) = (name(&track), keep.tier);
        }
    }

    /// The object is not on the card any more.
    pub(super) fn forget(&mut self, digest: &Digest) {
        if let Some(used) = self.files.remove(digest) {
            self.bytes -= u64::from(used.blocks) * BLOCK;
        }
    }

    /// These tracks are queued, in this order.
    pub(super) fn pin(&mut self, tracks: &[Digest]) {
        self.places.clear();
        for (place, track) in (0..NOWHERE).zip(tracks) {
            self.places.entry(name(track)).or_insert(place);
        }
    }

    /// A name that no temporary file had in this run.
    pub(super) fn temporary(&mut self) -> String {
        self.temporary += 1;
        self.temporary.to_string()
    }

    fn place(&self, track: u32) -> u16 {
        self.places.get(&track).copied().unwrap_or(NOWHERE)
    }

    fn order(&self, track: u32, tier: Tier) -> Order {
        let place = self.place(track);
        u32::from(place == NOWHERE) << 31 | (tier as u32) << 16 | u32::from(place)
    }

    /// What has to go so that an object for `keep` gets `need` bytes: enough for `want`, or at least for that. None if all
    /// else is more likely to be played.
    pub(super) fn victims(&self, keep: Keep, need: u64, want: u64) -> Option<Vec<Digest>> {
        let mine = self.order(keep.track.map_or(0, |t| name(&t)), keep.tier);
        // Of what is not queued any is as good as any other.
        let least = if mine >> 31 == 1 { 1 << 31 } else { mine + 1 };
        let mut loose: Vec<(u64, &Digest, u64)> = self
            .files
            .iter()
            .filter_map(|(digest, used)| {
                let order = self.order(used.track, used.tier);
                let key = u64::from(order) << 32 | u64::from(u32::MAX - used.at);
                (order >= least).then_some((key, digest, u64::from(used.blocks) * BLOCK))
            })
            .collect();
        if loose.iter().map(|l| l.2).sum::<u64>() < need {
            return None;
        }
        loose.sort_unstable_by_key(|l| std::cmp::Reverse(l.0));
        let mut sum = 0;
        let enough = |l: &&(u64, &Digest, u64)| {
            let go = sum < want;
            sum += l.2;
            go
        };
        Some(loose.iter().take_while(enough).map(|l| *l.1).collect())
    }

    /// Makes room in memory for an object of so many bytes; whether there is.
    pub(super) fn spare_room(&mut self, bytes: usize, keep: Keep) -> bool {
        let (track, tier) = (keep.track.map_or(0, |t| name(&t)), keep.tier);
        if self.place(track) >= SPARE_PLACES {
            return false;
        }
        let mine = self.order(track, tier);
        while self.spare.iter().map(|s| s.bytes.len()).sum::<usize>() + bytes > SPARE {
            // What was read goes first, then what is less likely to be played.
            let order = |s: &Spare| (s.read, self.order(s.keep.track.map_or(0, |t| name(&t)), s.keep.tier));
            let worst = (0..self.spare.len()).max_by_key(|&i| order(&self.spare[i]));
            match worst.filter(|&i| order(&self.spare[i]) > (false, mine)) {
                Some(i) => drop(self.spare.remove(i)),
                None => return false,
            }
        }
        true
    }

    /// Keeps an object in memory; whether there is room.
    pub(super) fn spare(&mut self, digest: Digest, bytes: Bytes, keep: Keep) -> bool {
        let room = self.spare_room(bytes.len(), keep);
        if room && !self.spare.iter().any(|s| s.digest == digest) {
            self.spare.push(Spare { digest, bytes, keep, read: false });
        }
        room
    }

    /// An object that is in memory; `read`: for the last time, as far as anybody knows.
    pub(super) fn spared(&mut self, digest: &Digest, read: bool) -> Option<Bytes> {
        let spare = self.spare.iter_mut().find(|s| s.digest == *digest)?;
        spare.read |= read;
        Some(spare.bytes.clone())
    }

    /// The object that is in memory for the longest time.
    pub(super) fn oldest_spare(&self) -> Option<(Digest, Bytes, Keep)> {
        self.spare.first().map(|s| (s.digest, s.bytes.clone(), s.keep))
    }

    /// An object need not be in memory any more.
    pub(super) fn drop_spare(&mut self, digest: &Digest) {
        self.spare.retain(|s| s.digest != *digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(n: u8) -> Digest {
        Digest([n + 1; 32])
    }

    fn keep(n: u8, tier: Tier) -> Keep {
        Keep { track: Some(track(n)), tier }
    }

    /// An object of one block for each tier of these tracks, named by both.
    fn table(tracks: std::ops::Range<u8>, queued: &[u8]) -> Table {
        let mut table = Table::default();
        for (n, tier) in tracks.flat_map(|n| [Tier::Small, Tier::Middle, Tier::Original].map(|t| (n, t))) {
            table.stored(object(n, tier), BLOCK, keep(n, tier));
        }
        table.pin(&queued.iter().map(|n| track(*n)).collect::<Vec<_>>());
        table
    }

    fn object(n: u8, tier: Tier) -> Digest {
        Digest::of(&[n, tier as u8])
    }

    #[test]
    fn what_is_least_likely_to_be_played_goes_first() {
        let mut table = table(0..4, &[2, 0]);
        table.touch(&object(1, Tier::Original));
        let mut all = table.victims(keep(9, Tier::Small), 1, u64::MAX / 2).unwrap();
        use Tier::{Middle, Original, Small};
        let loose = [(3, Original), (1, Original), (1, Middle), (3, Middle), (1, Small), (3, Small)];
        assert_eq!(all, loose.map(|(n, t)| object(n, t)), "of what is not queued, for what is not queued");
        all = table.victims(keep(2, Small), 1, u64::MAX / 2).unwrap();
        let queued = [(0, Original), (2, Original), (0, Middle), (2, Middle), (0, Small)];
        assert_eq!(all[6..], queued.map(|(n, t)| object(n, t)), "for what plays now");
        all = table.victims(keep(0, Original), 1, u64::MAX / 2).unwrap();
        assert_eq!(all.len(), 6, "an original of what is queued pushes out nothing else that is queued");
        assert_eq!(table.victims(keep(0, Original), 7 * BLOCK, 7 * BLOCK), None);
        assert_eq!(table.victims(keep(0, Middle), BLOCK, BLOCK).unwrap(), [object(3, Original)], "no more than needed");
    }

    #[test]
    fn what_is_asked_for_again_is_known_again() {
        let mut table = Table::default();
        let (small, big) = (Digest::of(b"small"), Digest::of(b"big"));
        table.found(small, 16_000);
        table.found(big, 400_000);
        table.pin(&[track(0)]);
        assert_eq!(table.victims(keep(1, Tier::Small), 1, 1).unwrap(), [big]);
        table.belongs(&big, keep(0, Tier::Original));
        assert_eq!(table.victims(keep(1, Tier::Small), 1, 1).unwrap(), [small]);
        assert_eq!(table.count(), (2, 4 * BLOCK + 98 * BLOCK));
        table.forget(&big);
        table.stored(small, 5_000, keep(0, Tier::Small));
        assert_eq!(table.count(), (1, 2 * BLOCK));
    }

    #[test]
    fn memory_holds_what_plays_now_and_next_and_no_more() {
        let mut table = Table::default();
        table.pin(&[track(0), track(1), track(2)]);
        let half = Bytes::from(vec![0; SPARE / 2]);
        let digest = |n: u8| Digest::of(&[n]);
        assert!(!table.spare(digest(9), half.clone(), keep(2, Tier::Small)), "too far away");
        assert!(table.spare(digest(1), half.clone(), keep(1, Tier::Original)));
        assert!(table.spare(digest(2), half.clone(), keep(0, Tier::Original)));
        assert!(!table.spare(digest(3), half.clone(), keep(1, Tier::Original)), "no room");
        assert!(table.spare(digest(3), half.clone(), keep(0, Tier::Small)), "in place of what comes later");
        assert_eq!([1, 2, 3].map(|n| table.has(&digest(n))), [false, true, true]);
        assert!(table.spared(&digest(2), true).is_some());
        assert!(table.spare(digest(4), half, keep(1, Tier::Middle)), "in place of what was played");
        assert_eq!(table.oldest_spare().map(|s| s.0), Some(digest(3)));
        table.drop_spare(&digest(3));
        assert_eq!(table.oldest_spare().map(|s| s.0), Some(digest(4)));
    }
}
