//! Places in memory: slabs cut to size, and joined again when a place is given back. Of the processor and of the GPU.

use std::collections::BTreeMap;

/// Addresses and bytes of slabs, and of what nobody uses of them.
#[derive(Default)]
pub struct Places {
    pub slabs: BTreeMap<u64, usize>,
    pub free: BTreeMap<u64, usize>,
}

impl Places {
    pub const fn new() -> Places {
        Places { slabs: BTreeMap::new(), free: BTreeMap::new() }
    }
    /// A slab of which nothing is in use.
    pub fn add(&mut self, at: u64, bytes: usize) {
        self.slabs.insert(at, bytes);
        self.free.insert(at, bytes);
    }
    /// Cuts `bytes` from the smallest free place that holds them, the first of these.
    pub fn take(&mut self, bytes: usize) -> Option<u64> {
        let fits = self.free.iter().filter(|&(_, &free)| free >= bytes);
        let (&at, &free) = fits.min_by_key(|&(_, &free)| free)?;
        self.free.remove(&at);
        if free > bytes {
            self.free.insert(at + bytes as u64, free - bytes);
        }
        Some(at)
    }
    /// Cuts `bytes` from the end of the largest free place: what comes next is cut from where it would have been.
    pub fn take_behind(&mut self, bytes: usize) -> Option<u64> {
        let (&at, &free) = self.free.iter().max_by_key(|&(_, &free)| free).filter(|&(_, &free)| free >= bytes)?;
        self.free.remove(&at);
        if free > bytes {
            self.free.insert(at, free - bytes);
        }
        Some(at + (free - bytes) as u64)
    }
    /// Takes a place back, joined with its free neighbours of the same slab.
    pub fn give(&mut self, mut at: u64, mut bytes: usize) {
        let next = at + bytes as u64;
        if !self.slabs.contains_key(&next) {
            bytes += self.free.remove(&next).unwrap_or(0);
        }
        if let Some((&before, &free)) = self.free.range(..at).next_back()
            && before + free as u64 == at
            && !self.slabs.contains_key(&at)
        {
            (at, bytes) = (before, bytes + free);
        }
        self.free.insert(at, bytes);
    }
    /// Slabs of which nothing is in use; they are ours no longer.
    pub fn unused(&mut self) -> Vec<(u64, usize)> {
        let unused = self.slabs.iter().filter(|&(at, bytes)| self.free.get(at) == Some(bytes));
        let unused: Vec<_> = unused.map(|(&at, &bytes)| (at, bytes)).collect();
        for (at, _) in &unused {
            self.slabs.remove(at);
            self.free.remove(at);
        }
        unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_cut_and_joined_within_their_slab() {
        let slabs = BTreeMap::from([(1000, 100), (1100, 50)]); // two that touch
        let mut places = Places { free: slabs.clone(), slabs };
        let [a, b, c] = [40, 60, 20].map(|bytes| places.take(bytes).unwrap());
        assert_eq!([a, b, c], [1100, 1000, 1060]); // the smallest place that holds them
        assert_eq!(places.take(30), None);
        places.give(b, 60);
        places.give(c, 20);
        assert_eq!(places.free, BTreeMap::from([(1000, 100), (1140, 10)]));
        assert_eq!(places.unused(), [(1000, 100)]);
        assert_eq!(places.take_behind(10), Some(1140));
        places.give(1140, 10);
        places.give(a, 40);
        assert_eq!(places.unused(), [(1100, 50)]);
        assert!(places.slabs.is_empty() && places.free.is_empty());
    }
}
