//! Runs against several servers in turn. Other work of the machine then affects all of them alike, and the median of
//! the ratios is a fair comparison.

use super::{Fleet, Outcome, Plan};

/// The runs of one server, one for each round.
pub type Runs = Vec<Outcome>;

/// Runs the plan on each fleet in turn, `rounds` times, every second round in reverse order.
pub async fn in_turns(fleets: &[&Fleet], rounds: usize, plan: Plan) -> Vec<Runs> {
    let mut runs = vec![Runs::new(); fleets.len()];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..fleets.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for n in order {
            runs[n].push(fleets[n].run(plan).await);
        }
    }
    runs
}

/// Returns the median of a figure.
pub fn median(runs: &Runs, figure: impl Fn(&Outcome) -> f64) -> f64 {
    middle(runs.iter().map(figure).collect())
}

/// Returns the median over all rounds of the ratio of `a`'s figure to `b`'s.
pub fn ratio(a: &Runs, b: &Runs, figure: impl Fn(&Outcome) -> f64) -> f64 {
    middle(a.iter().zip(b).map(|(a, b)| figure(a) / figure(b)).collect())
}

/// Returns the total count of errors in all runs.
pub fn errors(runs: &Runs) -> u64 {
    runs.iter().map(|run| run.seen.errors).sum()
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.retain(|value| !value.is_nan());
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The table heading for [`row`].
pub const HEADER: &str = "| what | server | requests/s | server CPU us | p50 us | p99 us | p99.9 us | answer bytes | errors |\n\
                          |---|---|---|---|---|---|---|---|---|";

/// Prints a row of the table.
pub fn row(what: &str, name: &str, runs: &Runs) {
    let at = |part| median(runs, move |run| run.seen.latency.at(part));
    println!(
        "| {what} | {name} | {:.0} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {} |",
        median(runs, Outcome::rate),
        median(runs, Outcome::cpu_us),
        at(0.5),
        at(0.99),
        at(0.999),
        median(runs, Outcome::answer_bytes),
        errors(runs)
    );
}
