//! Owns dates in lines: `strftime` patterns in UTC, with Envoy's fractions of a second.
//!
//! Pure arithmetic on the proleptic Gregorian calendar.

use std::fmt::Write;

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TimeFormat(Box<[Part]>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Literal(Box<str>),
    Year,
    ShortYear,
    Month,
    Day,
    PaddedDay,
    DayOfYear,
    Hour,
    Hour12,
    Minute,
    Second,
    /// Digits of the fraction of a second.
    Fraction(u8),
    /// The second with so many digits of its fraction.
    SecondFraction(u8),
    HalfDay,
    MonthName(bool),
    WeekdayName(bool),
    Weekday,
    Unix,
    UnixFraction(u8),
    Offset,
    Zone,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl TimeFormat {
    /// `2026-11-21T22:45:47.123Z`
    pub(super) fn standard() -> Self {
        let dash = || Part::Literal("-".into());
        let colon = || Part::Literal(":".into());
        let parts = [Part::Year, dash(), Part::Month, dash(), Part::Day, Part::Literal("T".into()), Part::Hour];
        let time = [colon(), Part::Minute, colon(), Part::SecondFraction(3), Part::Literal("Z".into())];
        Self(parts.into_iter().chain(time).collect())
    }

    pub(super) fn parse(pattern: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = pattern;
        while let Some(at) = rest.find('%') {
            literal(&mut parts, &rest[..at]);
            let (part, after) = specifier(&rest[at + 1..])?;
            match part {
                Expanded::One(part) => parts.push(part),
                Expanded::Pattern(pattern) => parts.extend(Self::parse(pattern)?.0),
                Expanded::Text(text) => literal(&mut parts, text),
            }
            rest = after;
        }
        literal(&mut parts, rest);
        Ok(Self(parts.into()))
    }

    /// Writes a moment given in microseconds since 1970.
    pub(super) fn render(&self, micros: u64, out: &mut impl Write) -> std::fmt::Result {
        let date = Date::of(micros);
        self.0.iter().try_for_each(|part| date.write(part, out))
    }
}

fn literal(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Literal(text.into()));
    }
}

enum Expanded {
    One(Part),
    Pattern(&'static str),
    Text(&'static str),
}

fn specifier(text: &str) -> Result<(Expanded, &str), String> {
    use Expanded::{One, Pattern, Text};
    let mut chars = text.chars();
    let letter = chars.next().ok_or("a time pattern ends in a percent sign")?;
    let after = chars.as_str();
    let expanded = match letter {
        'Y' => One(Part::Year),
        'y' => One(Part::ShortYear),
        'm' => One(Part::Month),
        'd' => One(Part::Day),
        'e' => One(Part::PaddedDay),
        'j' => One(Part::DayOfYear),
        'H' => One(Part::Hour),
        'I' => One(Part::Hour12),
        'M' => One(Part::Minute),
        'S' => One(Part::Second),
        'f' => One(Part::Fraction(9)),
        'p' => One(Part::HalfDay),
        'B' => One(Part::MonthName(true)),
        'b' | 'h' => One(Part::MonthName(false)),
        'A' => One(Part::WeekdayName(true)),
        'a' => One(Part::WeekdayName(false)),
        'w' => One(Part::Weekday),
        's' => One(Part::Unix),
        'z' => One(Part::Offset),
        'Z' => One(Part::Zone),
        'T' => Pattern("%H:%M:%S"),
        'R' => Pattern("%H:%M"),
        'F' => Pattern("%Y-%m-%d"),
        'D' => Pattern("%m/%d/%y"),
        'c' => Pattern("%a %b %e %H:%M:%S %Y"),
        'n' => Text("\n"),
        't' => Text("\t"),
        '%' => Text("%"),
        digits if digits.is_ascii_digit() || digits == 'E' => return fraction(text),
        other => return Err(format!("%{other} is not known in a time pattern")),
    };
    Ok((expanded, after))
}

/// `%3f` (digits of the fraction), `%E3S` (seconds with a fraction), `%s` with a fraction as `%E3s`.
fn fraction(text: &str) -> Result<(Expanded, &str), String> {
    let unknown = || format!("%{} is not known in a time pattern", text.chars().take(3).collect::<String>());
    let (seconds, text) = match text.strip_prefix('E') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let digit = text.chars().next().filter(char::is_ascii_digit).ok_or_else(unknown)?;
    let (digits, rest) = (digit as u8 - b'0', &text[1..]);
    let mut chars = rest.chars();
    let part = match (seconds, chars.next()) {
        (false, Some('f')) if digits > 0 => Part::Fraction(digits),
        (true, Some('S')) => Part::SecondFraction(digits),
        (true, Some('s')) => Part::UnixFraction(digits),
        _ => return Err(unknown()),
    };
    Ok((Expanded::One(part), chars.as_str()))
}

struct Date {
    unix: u64,
    nanos: u64,
    year: u64,
    month: u64,
    day: u64,
    day_of_year: u64,
    hour: u64,
    minute: u64,
    second: u64,
    weekday: u64,
}

impl Date {
    fn of(micros: u64) -> Self {
        let unix = micros / 1_000_000;
        let (days, in_day) = (unix / 86_400, unix % 86_400);
        let (year, month, day) = civil(days);
        let january = days_before(year);
        Self {
            unix,
            nanos: micros % 1_000_000 * 1000,
            year,
            month,
            day,
            day_of_year: days - january + 1,
            hour: in_day / 3600,
            minute: in_day / 60 % 60,
            second: in_day % 60,
            weekday: (days + 4) % 7,
        }
    }

    fn fraction(&self, digits: u8, out: &mut impl Write) -> std::fmt::Result {
        let digits = u32::from(digits.min(9));
        write!(out, "{:0width$}", self.nanos / 10u64.pow(9 - digits), width = digits as usize)
    }

    fn write(&self, part: &Part, out: &mut impl Write) -> std::fmt::Result {
        let name = |names: &[&'static str], index: u64, long: bool| {
            let name = names[index as usize];
            if long { name } else { &name[..3] }
        };
        match part {
            Part::Literal(text) => out.write_str(text),
            Part::Year => write!(out, "{:04}", self.year),
            Part::ShortYear => write!(out, "{:02}", self.year % 100),
            Part::Month => write!(out, "{:02}", self.month),
            Part::Day => write!(out, "{:02}", self.day),
            Part::PaddedDay => write!(out, "{:2}", self.day),
            Part::DayOfYear => write!(out, "{:03}", self.day_of_year),
            Part::Hour => write!(out, "{:02}", self.hour),
            Part::Hour12 => write!(out, "{:02}", (self.hour + 11) % 12 + 1),
            Part::Minute => write!(out, "{:02}", self.minute),
            Part::Second => write!(out, "{:02}", self.second),
            Part::Fraction(digits) => self.fraction(*digits, out),
            Part::SecondFraction(digits) => {
                write!(out, "{:02}", self.second)?;
                self.after_point(*digits, out)
            }
            Part::HalfDay => out.write_str(if self.hour < 12 { "AM" } else { "PM" }),
            Part::MonthName(long) => out.write_str(name(&MONTHS, self.month - 1, *long)),
            Part::WeekdayName(long) => out.write_str(name(&WEEKDAYS, self.weekday, *long)),
            Part::Weekday => write!(out, "{}", self.weekday),
            Part::Unix => write!(out, "{}", self.unix),
            Part::UnixFraction(digits) => {
                write!(out, "{}", self.unix)?;
                self.after_point(*digits, out)
            }
            Part::Offset => out.write_str("+0000"),
            Part::Zone => out.write_str("UTC"),
        }
    }

    fn after_point(&self, digits: u8, out: &mut impl Write) -> std::fmt::Result {
        if digits == 0 {
            return Ok(());
        }
        out.write_char('.')?;
        self.fraction(digits, out)
    }
}

/// Year, month and day of a number of days since 1970-01-01. Years are counted from March, so that the leap day comes
/// last and months have a regular length.
fn civil(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let shifted = days + 719_468;
    let (era, in_era) = (shifted / ERA, shifted % ERA);
    let year_of_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Days from 1970-01-01 to the first of January of a year.
fn days_before(year: u64) -> u64 {
    let years = year - 1;
    years * 365 + years / 4 - years / 100 + years / 400 - 719_162
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, micros: u64, expect: &str) {
        let mut out = String::new();
        TimeFormat::parse(pattern).unwrap().render(micros, &mut out).unwrap();
        assert_eq!(out, expect, "{pattern}");
    }

    #[test]
    fn known_moments() {
        const MOMENT: u64 = 1_792_104_347_012_345;
        check("%Y-%m-%dT%H:%M:%E3SZ", MOMENT, "2026-10-15T22:45:47.012Z");
        check("%a %b %e %T %Y %j %p %I", MOMENT, "Thu Oct 15 22:45:47 2026 288 PM 10");
        check("%s %3f %6f %f %E6s %z %Z %%", MOMENT, "1792104347 012 012345 012345000 1792104347.012345 +0000 UTC %");
        check("%F %j", 951_782_400_000_000, "2000-02-29 060");
        check("%F %A %B", 0, "1970-01-01 Thursday January");
        check("%D %y %I", 4_102_444_800_000_000, "01/01/00 00 12");
        let mut standard = String::new();
        TimeFormat::standard().render(MOMENT, &mut standard).unwrap();
        assert_eq!(standard, "2026-10-15T22:45:47.012Z");
    }

    #[test]
    fn unknown_patterns_are_refused() {
        for bad in ["%Q", "%", "%E3X", "%3", "%E"] {
            assert!(TimeFormat::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut last = civil(0);
        for days in 1..146_097 {
            let next = civil(days);
            let follows =
                next == (last.0, last.1, last.2 + 1) || next == (last.0, last.1 + 1, 1) || next == (last.0 + 1, 1, 1);
            assert!(follows && next.2 <= 31, "{last:?} then {next:?}");
            last = next;
        }
    }
}
