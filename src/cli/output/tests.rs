use super::*;
use crate::cli::error::Code;
use serde_json::json;

const SCHEMA: Schema = Schema { columns: &["peer", "addresses", "age_s"], id: "peer" };

fn written(format: Format, rows: &[Value]) -> String {
    let mut out = Vec::new();
    let mut printer = Rows::new(&mut out, format, SCHEMA);
    rows.iter().for_each(|row| printer.push(row).unwrap());
    assert_eq!(printer.finish().unwrap(), rows.len() as u64);
    String::from_utf8(out).unwrap()
}

fn sample() -> [Value; 2] {
    [
        json!({"peer": "A", "addresses": ["/ip4/1", "/ip4/2"], "age_s": 3, "more": true}),
        json!({"peer": "B, \"C\"", "addresses": [], "age_s": null}),
    ]
}

#[test]
fn every_format_shows_the_rows() {
    let ndjson = written(Format::Ndjson, &sample());
    let read: Vec<Value> = ndjson.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(read, sample());
    assert_eq!(written(Format::Csv, &sample()), "peer,addresses,age_s\nA,/ip4/1 /ip4/2,3\n\"B, \"\"C\"\"\",,\n");
    assert_eq!(written(Format::Ids, &sample()), "A\nB, \"C\"\n");
    let table = written(Format::Table, &sample());
    let words: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["peer", "addresses", "age", "s"]);
    assert_eq!(words[1], ["A", "/ip4/1", "3"]);
    assert_eq!(words[2], ["/ip4/2"]);
}

#[test]
fn the_pages_of_a_long_table_line_up_under_one_header() {
    let rows: Vec<Value> = (0..2 * PAGE_ROWS + 1).map(|n| json!({"peer": "p", "age_s": n})).collect();
    let table = written(Format::Table, &rows);
    assert_eq!(table.lines().count(), rows.len() + 1);
    assert_eq!(table.matches("peer").count(), 1);
    let column = |line: &str| line.rfind(' ').unwrap();
    let all: Vec<usize> = table.lines().skip(1).map(column).collect();
    assert!(all.iter().all(|c| *c == all[0]), "{all:?}");
}

#[test]
fn other_columns_begin_a_new_header() {
    for (format, headers) in [(Format::Table, 2), (Format::Csv, 2), (Format::Ndjson, 0)] {
        let mut out = Vec::new();
        let mut printer = Rows::new(&mut out, format, SCHEMA);
        printer.push(&json!({"peer": "A"})).unwrap();
        printer.switch(SCHEMA).unwrap();
        printer.switch(Schema { columns: &["cid", "age_s"], id: "cid" }).unwrap();
        printer.push(&json!({"cid": "B"})).unwrap();
        printer.finish().unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("age").count(), headers, "{text}");
    }
}

#[test]
fn what_strangers_chose_cannot_reach_the_terminal() {
    let evil = json!({"peer": "\u{1b}[2J\nfake row\u{202e}", "addresses": ["a\rb"]});
    for format in [Format::Table, Format::Ids] {
        let text = written(format, std::slice::from_ref(&evil));
        assert!(!text.contains(['\u{1b}', '\r', '\u{202e}']), "{text:?}");
        assert!(text.contains("\\u{1b}[2J\\u{a}fake row"), "{text:?}");
    }
}

/// A pipe that takes this number of bytes and is then closed.
struct Closing(usize);

impl Write for Closing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_goes_away_is_exit_0_in_every_format() {
    for format in [Format::Table, Format::Ndjson, Format::Csv, Format::Ids] {
        for bulk in [false, true] {
            let printer = Rows::new(Closing(10), format, SCHEMA);
            let mut printer = if bulk { printer.bulk() } else { printer };
            let outcome = (0..100_000).try_for_each(|_| printer.push(&sample()[0]));
            assert_eq!(outcome.unwrap_err().code(), Code::Ok, "{format:?}");
        }
    }
}

#[test]
fn durations_for_people_have_at_most_two_units() {
    for (millis, text) in [
        (0, "0s"),
        (12, "12ms"),
        (59_000, "59s"),
        (3_600_000, "1h"),
        (11_520_000, "3h 12m"),
        (90_061_000, "1d 1h"),
        (86_400_000 + 60_000, "1d"),
    ] {
        assert_eq!(human_duration(Duration::from_millis(millis)), text);
    }
}
