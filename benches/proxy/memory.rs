//! The cases about memory: resident bytes of a process that has just been started.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use monoio::time::sleep;
use nix::sys::resource::{Resource, getrlimit};

use crate::cases::{LARGE_BYTES, Values, all, open};
use crate::client::{Connection, Way};
use crate::content::noise;
use crate::measure::{Memory, memory};
use crate::report::{Metric, Ratio};

/// Until what was put off is done.
const REST: Duration = Duration::from_millis(500);

/// Memory of the process after some connections have come and gone.
async fn base(way: &Way) -> Result<Memory> {
    for connection in open(way, 8).await? {
        connection.close().await;
    }
    sleep(REST).await;
    memory(way.pid)
}

/// Ten thousand connections, or as many as a process may have that needs two descriptors each.
pub(crate) fn crowd() -> Result<usize> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(usize::try_from(most.saturating_sub(OTHER_FILES) / 2)?.min(10_000))
}

/// What a process has open besides connections, with room to spare.
const OTHER_FILES: u64 = 600;

pub(crate) async fn idle(way: &Way, count: usize) -> Result<Values> {
    let base = base(way).await?;
    let connections = open(way, count).await?;
    sleep(REST).await;
    let grown = memory(way.pid)?.now.saturating_sub(base.now);
    close(connections).await;
    Ok(vec![
        (Metric::new("KB per connection", Ratio::Plain, "22 KB"), kilobytes(grown, count)),
        (Metric::new("connections", Ratio::Nothing, ""), count as f64),
        (Metric::new("MB before", Ratio::Nothing, ""), base.now as f64 / 1e6),
    ])
}

pub(crate) async fn streams(way: &Way, count: usize) -> Result<Values> {
    let base = base(way).await?;
    let work = open(way, count).await?.into_iter().map(|mut connection| async move {
        connection.events("/sse?n=8&ms=250").await?;
        Ok(connection)
    });
    let streams = monoio::spawn(all(work.collect()));
    sleep(3 * REST).await;
    let grown = memory(way.pid)?.now.saturating_sub(base.now);
    close(streams.await?).await;
    Ok(vec![(Metric::new("KB per stream", Ratio::Plain, "40 KB"), kilobytes(grown, count))])
}

pub(crate) async fn downloads(way: &Way, count: usize) -> Result<Values> {
    let base = base(way).await?;
    let target = format!("/bytes?n={LARGE_BYTES}&seed=");
    let work = open(way, count).await?.into_iter().enumerate().map(|(index, mut connection)| {
        let target = format!("{target}{index}");
        async move {
            connection.get(&target).await?;
            Ok(connection)
        }
    });
    let connections = all(work.collect()).await?;
    let values = growth(way, base)?;
    close(connections).await;
    Ok(values)
}

pub(crate) async fn uploads(way: &Way, count: usize) -> Result<Values> {
    let body = Rc::new(noise(LARGE_BYTES));
    let base = base(way).await?;
    let work = open(way, count).await?.into_iter().map(|mut connection| {
        let body = Rc::clone(&body);
        async move {
            connection.post("/v1/files", &body).await?;
            Ok(connection)
        }
    });
    let connections = all(work.collect()).await?;
    let values = growth(way, base)?;
    close(connections).await;
    Ok(values)
}

fn growth(way: &Way, base: Memory) -> Result<Values> {
    let grown = memory(way.pid)?.peak.saturating_sub(base.now);
    Ok(vec![(Metric::new("MB at the peak over before", Ratio::Plain, "64 MB"), grown as f64 / 1e6)])
}

async fn close(connections: Vec<Connection>) {
    for connection in connections {
        connection.close().await;
    }
}

fn kilobytes(bytes: u64, count: usize) -> f64 {
    bytes as f64 / 1e3 / count as f64
}
