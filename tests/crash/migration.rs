//! Migrations from earlier schemas to the current one, killed at any call.

use crate::{
    points::{Point, Table},
    server::Home,
};
use dhtstore_testkit::files::copy;
use rand::{Rng, rngs::StdRng};
use std::{collections::HashMap, path::Path, sync::Mutex, time::Duration};

/// The ttl with which the fixtures were written.
const TTL: Duration = Duration::from_secs(12 * 3600);
/// Number of own CIDs of each fixture.
const OWN: usize = 1;

/// A directory as an earlier version left it.
#[derive(Clone, Copy)]
struct Fixture {
    name: &'static str,
    /// A time a few minutes after it was written, Unix seconds.
    then: i64,
    dump: &'static str,
}

const FIXTURES: [Fixture; 2] = [
    Fixture { name: "schema-1", then: 1_795_387_500, dump: include_str!("../../migrations/fixtures/schema-1.ndjson") },
    Fixture { name: "schema-2", then: 1_795_515_000, dump: include_str!("../../migrations/fixtures/schema-2.ndjson") },
];

/// Repeats this `kills` times: copies the fixture, kills one or two processes while they migrate it, then starts one
/// that must show everything.
pub fn run(library: &Path, mut random: StdRng, kills: i64, table: &Mutex<Table>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut opening = 0;
    let mut done = 0;
    while done < kills {
        let fixture = FIXTURES[random.random_range(0..FIXTURES.len())];
        let home = Home::new(TTL).at(fixture.then);
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/fixtures").join(fixture.name);
        copy(&files, &home.data());
        let left = (kills - done).min(random.random_range(1..=2));
        let again = if opening == 0 { 0 } else { left };
        let one = async {
            if opening == 0 {
                let mut plan = Point::Migration.plan(&mut random, 0);
                plan.nth = u64::MAX;
                let mut server = home.start(library, Some((&plan, true)));
                if server.ready(&home).await?.is_some() {
                    return Err("it ended by itself".to_owned());
                }
                opening = home.counted();
                return check(&home, fixture).await.map(drop);
            }
            let mut powers = Vec::new();
            for _ in 0..again {
                let plan = Point::Migration.plan(&mut random, opening);
                let mut server = home.start(library, Some((&plan, true)));
                let reached = server.ready(&home).await?.is_some_and(|end| end.killed());
                powers.push(plan.power && reached);
                let mut table = table.lock().unwrap();
                let found = table.at(Point::Migration, plan.power && reached);
                found.kills += 1;
                found.reached += u64::from(reached);
            }
            let mut server = home.start(library, None);
            if server.ready(&home).await?.is_some() {
                return Err("it ended by itself".to_owned());
            }
            let took = server.ready_after;
            let (records, notes) = check(&home, fixture).await?;
            if !notes.is_empty() && !powers.contains(&true) {
                return Err(format!("notes after a kill: {notes:?}"));
            }
            let mut table = table.lock().unwrap();
            for power in powers {
                let found = table.at(Point::Migration, power);
                found.records += records;
                found.own += OWN as u64;
                found.notes += notes.len() as u64;
                found.slowest = found.slowest.max(took);
            }
            Ok(())
        };
        runtime.block_on(one).map_err(|why| format!("Migration: {why}\n{}", home.log()))?;
        done += again;
    }
    Ok(())
}

/// Checks that everything of the fixture is there, in the current schema. Returns the number of records, and the notes
/// of recovery.
async fn check(home: &Home, fixture: Fixture) -> Result<(u64, Vec<String>), String> {
    let (shown, stat) = home.shown().await?;
    // Fixtures do not contain the identity with which they were written.
    let expected: HashMap<String, String> = fixture
        .dump
        .lines()
        .map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            (text("multihash"), text("provider"))
        })
        .collect();
    let found = (shown.records == expected, shown.own.len(), stat.store.schema, shown.damaged.len());
    match found {
        (true, OWN, 3, 0) => Ok((expected.len() as u64, shown.notes)),
        _ => Err(format!("records as they were, own CIDs, schema, damaged: {found:?}; {:?}", shown.notes)),
    }
}
