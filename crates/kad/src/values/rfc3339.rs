//! Parses and prints the times of IPNS records: RFC 3339 to the nanosecond, here counted from the Unix epoch.

use std::{fmt::Write, time::Duration};

const DAY: i64 = 24 * 60 * 60;

/// Parses a time such as `2126-01-02T03:04:05.6Z`, or with an offset, `…+05:30`. A time before 1970 counts as the first
/// moment of 1970.
///
/// Digits beyond the nanosecond are cut off. As in go, `T` and `Z` must be capital, and leap seconds are refused.
/// Unlike go, this refuses a comma instead of the point, an hour of one digit, and offsets of 24 hours or 60 minutes.
pub fn parse(text: &str) -> Option<Duration> {
    let (date, time) = text.split_once('T')?;
    let (time, offset) = match time.strip_suffix('Z') {
        Some(time) => (time, 0),
        None => {
            let (time, offset) = time.split_at_checked(time.len().checked_sub("+00:00".len())?)?;
            (time, parse_offset(offset)?)
        }
    };
    let (time, nanos) = match time.split_once('.') {
        Some((time, fraction)) => (time, parse_fraction(fraction)?),
        None => (time, 0),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    if !(1..=12).contains(&month)
        || !(1..=days_of(year, month)).contains(&day)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let seconds = days_until(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    Some(u64::try_from(seconds).map_or(Duration::ZERO, |seconds| Duration::new(seconds, nanos)))
}

/// Prints a time in UTC without trailing zeros. Returns `None` after the year 9999.
pub fn format(time: Duration) -> Option<String> {
    let seconds = i64::try_from(time.as_secs()).ok()?;
    let (year, month, day) = date_of(seconds / DAY);
    if year > 9999 {
        return None;
    }
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if time.subsec_nanos() > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, ".{:09}", time.subsec_nanos());
        text.truncate(text.trim_end_matches('0').len());
    }
    text.push('Z');
    Some(text)
}

/// Parses `+hh:mm` or `-hh:mm` into seconds east of UTC.
fn parse_offset(text: &str) -> Option<i64> {
    let (sign, text) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let [hours, minutes] = numbers(text, ':', [2, 2])?;
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

fn parse_fraction(digits: &str) -> Option<u32> {
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some(digits.bytes().chain(std::iter::repeat(b'0')).take(9).fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
}

/// Parses exactly `N` numbers of exactly these widths.
fn numbers<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut found = [0; N];
    for (number, width) in found.iter_mut().zip(widths) {
        let digits = parts.next().filter(|part| part.len() == width && part.bytes().all(|b| b.is_ascii_digit()))?;
        *number = digits.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Returns the days from 1970-01-01 to this date. Years are counted from March, so that the leap day comes last.
fn days_until(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // From March on, the months repeat a cycle of 31, 30, 31, 30 and 31 days: 153 days in five months.
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - DAYS_TO_1970
}

/// Days from March of the year 0 to 1970.
const DAYS_TO_1970: i64 = 719_468;
/// Days in 400 years, after which the calendar repeats.
const DAYS_OF_400_YEARS: i64 = 146_097;

/// Returns year, month and day of a day, which is counted from 1970-01-01 and must not lie before it. The inverse of
/// [`days_until`].
fn date_of(day: i64) -> (i64, i64, i64) {
    let day = day + DAYS_TO_1970;
    let (cycle, day) = (day / DAYS_OF_400_YEARS, day % DAYS_OF_400_YEARS);
    // Every 4th year has an extra day, except every 100th, unless it is also a 400th.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (year * 365 + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    (cycle * 400 + year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The last second of the year 9999.
    const LAST: u64 = 253_402_300_799;

    /// Text that go accepts although RFC 3339 does not allow it.
    const STRICTER: [&str; 5] =
        ["2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+00:60", "2026-01-01T00:00:00,5Z", "2026-01-01T0:00:00Z", ""];

    #[test]
    fn val_3_times_are_read_and_written_as_go_does() {
        let table = include_str!("../../fixtures/times.txt");
        for line in table.lines() {
            let cells: Vec<&str> = line.split('\t').collect();
            let text = cells[0].trim_matches('"');
            let expected = (!STRICTER.contains(&text) && cells[1] != "refuse")
                .then(|| Duration::new(cells[1].parse().unwrap(), cells[2].parse().unwrap()));
            assert_eq!(parse(text), expected, "{text}");
            if let Some(time) = expected {
                assert_eq!(format(time).unwrap(), cells[3].trim_matches('"'));
            }
        }
        assert_eq!(table.lines().count(), 52);
    }

    #[test]
    fn val_3_a_time_before_1970_is_long_past() {
        assert_eq!(parse("1969-12-31T23:59:59.9Z"), Some(Duration::ZERO));
        assert_eq!(parse("0000-01-01T00:00:00Z"), Some(Duration::ZERO));
        assert_eq!(parse("1970-01-01T00:00:00+00:01"), Some(Duration::ZERO));
    }

    #[test]
    fn the_last_moment_that_can_be_written() {
        assert_eq!(format(Duration::new(LAST, 999_999_999)).unwrap(), "9999-12-31T23:59:59.999999999Z");
        assert_eq!(format(Duration::from_secs(LAST + 1)), None);
        assert_eq!(format(Duration::MAX), None);
    }

    #[test]
    fn every_day_of_400_years_is_read_as_it_was_written() {
        for day in 0..DAYS_OF_400_YEARS {
            let time = Duration::from_secs((day * DAY) as u64);
            assert_eq!(parse(&format(time).unwrap()), Some(time));
        }
    }

    proptest! {
        #[test]
        fn val_3_what_is_written_is_read(seconds in 0..=LAST, nanos in 0..1_000_000_000u32) {
            let time = Duration::new(seconds, nanos);
            prop_assert_eq!(parse(&format(time).unwrap()), Some(time));
        }

        #[test]
        fn val_3_no_text_panics_the_reader(text in "\\PC*|[0-9TZ:.+-]{0,40}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]*.{0,8}") {
            parse(&text);
        }
    }
}
