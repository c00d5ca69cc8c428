//! A rotary encoder's two contacts become detents.
//!
//! Between two detents the contacts pass all four states of a Gray code. A contact that bounces steps back and forth between two
//! neighbours, which adds up to nothing: no time is needed to tell bounce from turn. A detent is where both contacts are open.

/// The state of an encoder.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rotary {
    /// Whether A and B are at ground.
    low: [bool; 2],
    /// Quarter steps since the last detent, clockwise positive.
    quarters: i8,
}

impl Rotary {
    /// Contact `which` (0: A, 1: B) went to ground or came back; tells a detent that was reached, clockwise positive.
    pub fn edge(&mut self, which: usize, low: bool) -> Option<i8> {
        let before = self.phase();
        *self.low.get_mut(which)? = low;
        // 1 and 3 are a step forth or back; 2 (an edge was missed) says nothing.
        self.quarters += match (self.phase() + 4 - before) % 4 {
            1 => 1,
            3 => -1,
            _ => 0,
        };
        if self.phase() != 0 {
            return None;
        }
        // Half a turn between detents is enough: an edge may have been missed.
        let turned = (std::mem::take(&mut self.quarters) / 2).signum();
        (turned != 0).then_some(turned)
    }

    /// Where in the code the contacts are; clockwise counts up.
    fn phase(self) -> u8 {
        match self.low {
            [false, false] => 0,
            [true, false] => 1,
            [true, true] => 2,
            [false, true] => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(rotary: &mut Rotary, edges: &[(usize, bool)]) -> Vec<i8> {
        edges.iter().filter_map(|(which, low)| rotary.edge(*which, *low)).collect()
    }

    const RIGHT: [(usize, bool); 4] = [(0, true), (1, true), (0, false), (1, false)];
    const LEFT: [(usize, bool); 4] = [(1, true), (0, true), (1, false), (0, false)];

    #[test]
    fn a_detent_is_told_once_and_with_its_direction() {
        let mut rotary = Rotary::default();
        assert_eq!(turn(&mut rotary, &[RIGHT, RIGHT, LEFT].concat()), [1, 1, -1]);
    }

    #[test]
    fn bounce_and_turning_back_count_nothing() {
        let mut rotary = Rotary::default();
        let bouncing: Vec<_> = RIGHT.iter().flat_map(|&(w, low)| [(w, low), (w, !low), (w, low)]).collect();
        assert_eq!(turn(&mut rotary, &bouncing), [1]);
        assert_eq!(turn(&mut rotary, &[(0, true), (0, false), (1, true), (1, false)]), [0; 0]);
        assert_eq!(turn(&mut rotary, &[(0, true), (1, true), (1, false), (0, false)]), [0; 0]);
    }

    #[test]
    fn a_missed_edge_costs_a_detent_at_most() {
        let mut rotary = Rotary::default();
        let missed: Vec<_> = RIGHT.into_iter().filter(|edge| *edge != (0, false)).collect();
        assert_eq!(turn(&mut rotary, &[missed, RIGHT.to_vec()].concat()), [1]);
        assert_eq!(turn(&mut rotary, &RIGHT), [1]);
    }
}
