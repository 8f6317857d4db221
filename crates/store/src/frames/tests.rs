use super::*;
use proptest::prelude::*;

fn file_of(frames: &[Vec<u8>]) -> (tempfile::NamedTempFile, Vec<u64>, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut ends = vec![0];
    for item in frames {
        bytes.extend(codec::frame(item).unwrap());
        ends.push(bytes.len() as u64);
    }
    (tempfile::NamedTempFile::new().unwrap(), ends, bytes)
}

fn read(file: &tempfile::NamedTempFile, bytes: &[u8], joined: u64) -> (Vec<Vec<u8>>, Vec<bool>) {
    std::fs::write(file.path(), bytes).unwrap();
    let (mut items, mut damage) = (Vec::new(), Vec::new());
    for part in Frames::<Vec<u8>>::open(file.path(), 0, joined).unwrap() {
        match part.unwrap() {
            Part::Frame { item, .. } => items.push(item),
            Part::Damage { is_cut, .. } => damage.push(is_cut),
        }
    }
    (items, damage)
}

fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..400), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_costs_at_most_its_frame_and_is_never_a_cut(
        frames in frames(),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
        joined in prop::sample::select(vec![0u64, 4096]),
    ) {
        let (file, ends, mut bytes) = file_of(&frames);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let damaged = ends.iter().rposition(|end| *end <= at as u64).unwrap();
        let (items, damage) = read(&file, &bytes, joined);
        let mut others = frames.clone();
        let lost = others.remove(damaged);
        prop_assert_eq!(damage, vec![false]);
        // A damaged length costs nothing: the next frame shows where this one ends.
        let of_length = at as u64 - ends[damaged] < 4;
        prop_assert_eq!(&items, if of_length { &frames } else { &others }, "{} of {:?}", damaged, lost);
    }

    #[test]
    fn a_cut_file_is_read_up_to_the_cut(frames in frames(), cut in any::<prop::sample::Index>()) {
        let (file, ends, bytes) = file_of(&frames);
        let cut = cut.index(bytes.len());
        let (items, damage) = read(&file, &bytes[..cut], 4096);
        let whole = ends.iter().rposition(|end| *end <= cut as u64).unwrap();
        prop_assert_eq!(items, &frames[..whole]);
        prop_assert_eq!(damage, if ends[whole] == cut as u64 { vec![] } else { vec![true] });
    }

    #[test]
    fn behind_garbage_all_whole_frames_are_found(
        frames in frames(),
        from in any::<prop::sample::Index>(),
        garbage in proptest::collection::vec(any::<u8>(), 1..900),
    ) {
        let (file, ends, mut bytes) = file_of(&frames);
        let from = from.index(bytes.len());
        let to = (from + garbage.len()).min(bytes.len());
        bytes[from..to].copy_from_slice(&garbage[..to - from]);
        let (items, _) = read(&file, &bytes, 4096);
        for (frame, ends) in frames.iter().zip(ends.windows(2)) {
            if ends[1] <= from as u64 || ends[0] >= to as u64 {
                prop_assert!(items.contains(frame));
            }
        }
        prop_assert!(items.iter().all(|item| frames.contains(item)));
    }
}

/// Strangers choose the bytes in a chunk. A frame that they put into one must never count, whatever damages the chunk.
#[test]
fn a_frame_inside_of_a_damaged_one_does_not_count() {
    let forged = codec::frame(&b"forged".to_vec()).unwrap();
    let mut frames: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n; 300]).collect();
    for around in [0, 20, 39] {
        frames[around] = [vec![1; 40], forged.clone(), vec![2; 200]].concat();
    }
    let (file, ends, bytes) = file_of(&frames);
    for damaged in [0usize, 20, 39] {
        for byte in 0..12u64 {
            let mut bytes = bytes.clone();
            let at = (ends[damaged] + byte) as usize;
            bytes[at] ^= 0x40;
            let (items, damage) = read(&file, &bytes, 4096);
            assert!(!items.contains(&b"forged".to_vec()), "frame {damaged}, byte {byte}");
            assert!(items.len() >= 39 && damage == [false], "frame {damaged}, byte {byte}: {damage:?}");
        }
    }
}

#[test]
fn zeros_and_lengths_that_lie_end_in_bounded_time() {
    let (file, _, first) = file_of(&[vec![7; 100]]);
    // Of each eight offsets one claims a frame of 65,535 bytes, and one a frame of 257 bytes with the right version.
    let lying: Vec<u8> = [0xff, 0xff, 0, 0, codec::VERSION, 1, 0, 0].into_iter().cycle().take(2 << 20).collect();
    for behind in [vec![0; 4 << 20], lying] {
        let begun = std::fs::read(file.path()).unwrap();
        assert!(begun.len() < 8 << 20);
        let (items, damage) = read(&file, &[first.clone(), behind].concat(), 4096);
        assert_eq!((items.len(), damage.len()), (1, 1));
    }
}
