//! Compares the output of a command with the output that a document shows.
//!
//! These vary from run to run and are not compared: peer ids, times, durations, sizes in bytes, hashes, fractions, and
//! numbers from 32,768 upwards (ports of outgoing connections, seconds). The width of columns and empty lines do not
//! count. A line `…` in a document stands for any number of lines. A word that ends in `…` stands for any word with
//! that beginning.

/// Words that follow a quantity that varies.
const UNITS: [&str; 9] = ["ms", "us", "s", "h", "B", "KiB", "MiB", "GiB", "bytes"];

/// The lines of a terminal's output: without escape sequences, and without what a progress bar has overwritten.
pub fn lines(output: &str) -> Vec<String> {
    let lines = output.lines().map(|line| {
        let line = line.trim_end_matches('\r');
        let mut shown = String::new();
        let mut rest = line.rsplit('\r').next().unwrap();
        while let Some((before, after)) = rest.split_once("\u{1b}[") {
            shown += before;
            rest = after.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, behind)| behind);
        }
        shown + rest
    });
    lines.filter(|line| !line.trim().is_empty()).collect()
}

/// Whether the output is the one that the document shows.
pub fn fits(expected: &[String], actual: &[String]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((line, rest)) if line.trim().is_empty() => fits(rest, actual),
        Some((line, rest)) if line.trim() == "…" => (0..=actual.len()).any(|skipped| fits(rest, &actual[skipped..])),
        Some((line, rest)) => actual.first().is_some_and(|first| line_fits(line, first)) && fits(rest, &actual[1..]),
    }
}

/// Whether a line of the log contains what the document shows. The document leaves out the time at the beginning.
pub fn line_contains(expected: &str, actual: &str) -> bool {
    mask(actual).join(" ").contains(&mask(expected).join(" "))
}

fn line_fits(expected: &str, actual: &str) -> bool {
    let (expected, actual) = (mask(expected), mask(actual));
    let word_fits = |(expected, actual): (&String, &String)| match expected.strip_suffix('…') {
        Some(beginning) => actual.starts_with(beginning),
        None => expected == actual,
    };
    expected.len() == actual.len() && expected.iter().zip(&actual).all(word_fits)
}

/// The words of a line, each with a mark in place of what varies.
fn mask(line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let of_unit =
        |at: usize| words.get(at).is_some_and(|word| UNITS.contains(&word.trim_end_matches([',', ';', ':', ')'])));
    let of_word = |(at, word): (usize, &&str)| {
        if of_unit(at) && at > 0 {
            "<unit>".to_owned()
        } else if word.trim_matches(['(', ',']).parse::<f64>().is_ok_and(|_| of_unit(at + 1) || word.contains('.')) {
            "#".to_owned()
        } else if word.len() >= 20 && word.ends_with('Z') && word.as_bytes()[10] == b'T' {
            "<time>".to_owned()
        } else {
            segments(word)
        }
    };
    words.iter().enumerate().map(of_word).collect()
}

/// A word with a mark for each peer id, hash, duration and large number in it.
fn segments(word: &str) -> String {
    let of_segment = |segment: &str| {
        let digits = segment.trim_end_matches(|c: char| c.is_ascii_lowercase());
        let is_duration = !digits.is_empty() && ["s", "ms", "us", "m", "h", "d"].contains(&&segment[digits.len()..]);
        match segment {
            _ if segment.starts_with("12D3Koo") && segment.len() == 52 => "<peer>",
            _ if segment.len() == 64 && segment.chars().all(|c| c.is_ascii_hexdigit()) => "<hash>",
            _ if segment.parse::<u64>().is_ok_and(|n| n >= 32_768) => "#",
            _ if is_duration && digits.parse::<u64>().is_ok() => "#",
            _ => segment,
        }
        .to_owned()
    };
    let mut out = String::new();
    let mut rest = word;
    while let Some(at) = rest.find(|c: char| !c.is_alphanumeric()) {
        let (segment, behind) = rest.split_at(at);
        out += &of_segment(segment);
        let other = behind.chars().next().unwrap();
        out.push(other);
        rest = &behind[other.len_utf8()..];
    }
    out + &of_segment(rest)
}

#[test]
fn what_varies_is_not_compared_and_everything_else_is() {
    let own = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let peer = |c: char| format!("12D3KooW{}", c.to_string().repeat(44));
    let expected =
        own(&[&format!("/ip4/127.0.0.1/tcp/4001/p2p/{}  2026-11-22T19:06:49Z  43188", peer('a')), "…", "bafy…  5"]);
    let actual =
        own(&[&format!("/ip4/127.0.0.1/tcp/4001/p2p/{} 2027-11-22T19:06:49Z 43190", peer('b')), "x", "", "bafyz 5"]);
    assert!(fits(&expected, &lines(&actual.join("\r\n"))));
    for (expected, actual) in [("added 1", "added 2"), ("yes", "yes 1"), ("tcp/4001", "tcp/4002"), ("", "more")] {
        assert!(!fits(&own(&[expected]), &own(&[actual])), "{expected:?} {actual:?}");
    }
    assert!(fits(&own(&["yes, 0 ms  16s  1.5"]), &own(&["yes, 12 ms 2s 33.25"])));
    assert_eq!(lines("bar\r\u{1b}[2Kname  value\r\n"), ["name  value"]);
    assert!(line_contains("INFO verified tried=1", "2026-11-26T20:57:16.588867Z  INFO verified tried=1 admitted=1"));
}
