use super::*;

#[test]
fn the_chunk_that_fills_a_segment_counts_before_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut segments = Segments::open(dir.path().to_owned(), &SegmentRows::new());
    let chunk = vec![7; 30_000];
    let mut append = |key: u64| {
        let location = segments.append(key, &chunk, std::iter::empty(), |_| None).unwrap();
        segments.pointed(location.segment);
        segments.indexed();
        // The chunk before it has expired.
        if key > 0 {
            segments.unpointed(0);
        }
        location
    };
    let (mut key, mut last) = (0, append(0));
    while last.end() < SEGMENT_BYTES {
        key += 1;
        last = append(key);
    }
    let unsynced = segments.take_unsynced();
    unsynced.sync(dir.path()).unwrap();
    let bytes = fs::metadata(path(dir.path(), 0)).unwrap().len();
    assert_eq!(unsynced.ends, [(0, bytes)], "the row covers the whole segment");
    assert_eq!(segments.synced(&unsynced), Vec::<u32>::new());
    assert_eq!(read(dir.path(), key, last).unwrap(), chunk);
    // After a restart there is nothing to salvage.
    let rows = SegmentRows::from([(0, (1, Some(bytes)))]);
    assert_eq!(Segments::open(dir.path().to_owned(), &rows).unindexed(false), []);
    // The segment is removed with its last chunk.
    segments.unpointed(0);
    let unsynced = segments.take_unsynced();
    assert_eq!(segments.synced(&unsynced), [0]);
    assert!(!path(dir.path(), 0).exists());
}
