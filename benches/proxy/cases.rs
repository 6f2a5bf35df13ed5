//! What is done and measured, case by case.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use monoio::time::sleep_until;

use crate::client::{Connection, Way};
use crate::content::conversation;
use crate::measure::{quantile, settled_cpu};
use crate::memory;
use crate::report::{Metric, Ratio};

/// One case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    KeepAlive,
    Paced,
    Connect,
    Fresh,
    Post,
    Download,
    Beyond,
    Events,
    Texts,
    PassedConnect,
    PassedDownload,
    IdleMemory,
    CrowdMemory,
    StreamMemory,
    DownloadMemory,
    UploadMemory,
}

/// What a case found, each value under what it means.
pub(crate) type Values = Vec<(Metric, f64)>;

/// Bytes of an LLM request and of a download.
const POST_BYTES: usize = 200_000;
pub(crate) const LARGE_BYTES: usize = 8 << 20;

/// What the gate keeps of a body at most, as configured by default, and where the case is what
/// lies beyond.
const BODY_BYTES_MAX: u64 = 64 << 20;
const BODY_BYTES_MAX_SMALL: u64 = 64 << 10;

impl Case {
    pub(crate) const ALL: [Self; 16] = [
        Self::KeepAlive,
        Self::Paced,
        Self::Connect,
        Self::Fresh,
        Self::Post,
        Self::Download,
        Self::Beyond,
        Self::Events,
        Self::Texts,
        Self::PassedConnect,
        Self::PassedDownload,
        Self::IdleMemory,
        Self::CrowdMemory,
        Self::StreamMemory,
        Self::DownloadMemory,
        Self::UploadMemory,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive GET 1 KB, 16 connections",
            Self::Paced => "the same, paced at 5,000/s",
            Self::Connect => "new connection + GET, 16 at once",
            Self::Fresh => "one event stream on a fresh connection",
            Self::Post => "POST 200 KB, 8 connections",
            Self::Download => "download 8 MB, 4 connections",
            Self::Beyond => "download 8 MB, beyond the capture bound",
            Self::Events => "200 event streams",
            Self::Texts => "WebSocket messages",
            Self::PassedConnect => "passthrough tunnel: new connection + GET, 16 at once",
            Self::PassedDownload => "passthrough tunnel: download 8 MB, 4 connections",
            Self::IdleMemory => "memory, 1,000 idle connections",
            Self::CrowdMemory => "memory, 10,000 idle connections, or as many as files may be open",
            Self::StreamMemory => "memory, 1,000 open event streams",
            Self::DownloadMemory => "memory, 8 MB down on 100 connections",
            Self::UploadMemory => "memory, 8 MB up on 100 connections",
        }
    }

    /// What the gate of this case keeps of a body at most.
    pub(crate) fn body_bytes_max(self) -> u64 {
        if self == Self::Beyond { BODY_BYTES_MAX_SMALL } else { BODY_BYTES_MAX }
    }

    /// Whether the relay and the gate pass TLS on unread, as for a host on the passthrough list.
    pub(crate) fn passes_through(self) -> bool {
        matches!(self, Self::PassedConnect | Self::PassedDownload)
    }

    /// Whether it is about memory: then each process is a new one, there is one round, and the
    /// direct way has nothing to show.
    pub(crate) fn is_about_memory(self) -> bool {
        matches!(
            self,
            Self::IdleMemory
                | Self::CrowdMemory
                | Self::StreamMemory
                | Self::DownloadMemory
                | Self::UploadMemory
        )
    }

    /// Does it once. `tiny` is for seeing that it works.
    pub(crate) async fn run(self, way: &Way, tiny: bool) -> Result<Values> {
        let of = |full, small| if tiny { small } else { full };
        match self {
            Self::KeepAlive => keep_alive(way, 16, of(500, 4)).await,
            Self::Paced => paced(way, 16, of(300, 4)).await,
            Self::Connect | Self::PassedConnect => connect(way, of(16, 4), of(40, 2)).await,
            Self::Fresh => fresh(way, of(20, 2), of(25, 4)).await,
            Self::Post => post(way, of(8, 2), of(25, 2)).await,
            Self::Download | Self::Beyond => download(way, of(4, 2), of(4, 1), "1.15 beyond").await,
            Self::PassedDownload => download(way, of(4, 2), of(4, 1), "1.1").await,
            Self::Events => events(way, of(200, 8), of(100, 5)).await,
            Self::Texts => texts(way, of(16, 2), of(400, 4)).await,
            Self::IdleMemory => memory::idle(way, of(1000, 20)).await,
            Self::CrowdMemory => memory::idle(way, of(memory::crowd()?, 30)).await,
            Self::StreamMemory => memory::streams(way, of(1000, 20)).await,
            Self::DownloadMemory => memory::downloads(way, of(100, 4)).await,
            Self::UploadMemory => memory::uploads(way, of(100, 4)).await,
        }
    }
}

async fn keep_alive(way: &Way, connections: usize, each: usize) -> Result<Values> {
    let work = open(way, connections).await?.into_iter().map(|mut connection| async move {
        let mut times = Vec::with_capacity(each);
        for _ in 0..each {
            times.push(connection.get("/small").await?);
        }
        Ok((connection, times))
    });
    let (done, block) = measured(way, work.collect()).await?;
    let mut times = close(done).await;
    let count = times.len() as f64;
    Ok(vec![
        (Metric::new("CPU µs/request", Ratio::Plain, "1.6"), micros(block.cpu) / count),
        (Metric::new("requests/s", Ratio::Plain, ""), count / block.wall.as_secs_f64()),
        (Metric::new("p50 µs", Ratio::Plain, ""), micros(quantile(&mut times, 0.5))),
        (Metric::new("p99 µs", Ratio::Plain, ""), micros(quantile(&mut times, 0.99))),
    ])
}

async fn paced(way: &Way, connections: u32, each: usize) -> Result<Values> {
    const PERIOD: Duration = Duration::from_micros(200);
    let open = open(way, connections as usize).await?;
    let begin = Instant::now() + Duration::from_millis(200); // while the CPU is read
    let work = (0..connections).zip(open).map(|(index, mut connection)| async move {
        let mut times = Vec::with_capacity(each);
        let mut due = begin + PERIOD * index;
        for _ in 0..each {
            sleep_until(due.into()).await;
            times.push(connection.get("/small").await?);
            due += PERIOD * connections;
        }
        Ok((connection, times))
    });
    let (done, block) = measured(way, work.collect()).await?;
    let mut times = close(done).await;
    let count = times.len() as f64;
    Ok(vec![
        (Metric::new("CPU µs/request", Ratio::Plain, "1.6"), micros(block.cpu) / count),
        (Metric::new("p50 µs", Ratio::Plain, ""), micros(quantile(&mut times, 0.5))),
        (Metric::new("p99 µs", Ratio::Plain, ""), micros(quantile(&mut times, 0.99))),
    ])
}

async fn connect(way: &Way, at_once: usize, each: usize) -> Result<Values> {
    let work = (0..at_once).map(|_| {
        let way = way.clone();
        async move {
            let mut times = Vec::with_capacity(each);
            for _ in 0..each {
                let begun = Instant::now();
                let mut connection = Connection::open(&way).await?;
                connection.get("/small").await?;
                times.push(begun.elapsed());
                connection.close().await;
            }
            Ok(times)
        }
    });
    let (done, block) = measured(way, work.collect()).await?;
    let mut times = done.concat();
    let count = times.len() as f64;
    Ok(vec![
        (Metric::new("CPU µs/connection", Ratio::Plain, "1.1"), micros(block.cpu) / count),
        (Metric::new("p50 µs", Ratio::Plain, "1.1"), micros(quantile(&mut times, 0.5))),
    ])
}

async fn fresh(way: &Way, connections: usize, events: usize) -> Result<Values> {
    let (mut opened, mut first_bytes, mut ages) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..connections {
        let begun = Instant::now();
        let mut connection = Connection::open(way).await?;
        opened.push(begun.elapsed());
        let (first_byte, more) = connection.events(&format!("/sse?n={events}&ms=2")).await?;
        first_bytes.push(first_byte);
        ages.extend(more);
        connection.close().await;
    }
    Ok(vec![
        (Metric::new("open µs p50", Ratio::Plain, ""), micros(quantile(&mut opened, 0.5))),
        (
            Metric::new("request to first byte µs p50", Ratio::Plain, "1.1"),
            micros(quantile(&mut first_bytes, 0.5)),
        ),
        (Metric::new("event µs p50", Ratio::Added, "2"), micros(quantile(&mut ages, 0.5))),
        (Metric::new("event µs p99", Ratio::Plain, "1.5"), micros(quantile(&mut ages, 0.99))),
    ])
}

async fn post(way: &Way, connections: usize, each: usize) -> Result<Values> {
    let bodies: Vec<_> = (0..16).map(|_| Rc::new(conversation(POST_BYTES, fresh_seed()))).collect();
    let work =
        open(way, connections).await?.into_iter().enumerate().map(|(index, mut connection)| {
            let bodies = bodies.clone();
            async move {
                for at in 0..each {
                    connection.post("/v1/messages", &bodies[(index + at) % bodies.len()]).await?;
                }
                Ok((connection, Vec::new()))
            }
        });
    let (done, block) = measured(way, work.collect()).await?;
    close(done).await;
    let bytes: usize = bodies.iter().map(|body| body.len()).sum();
    let bytes = bytes as f64 / bodies.len() as f64 * (connections * each) as f64;
    Ok(per_byte(&block, bytes, ""))
}

async fn download(
    way: &Way,
    connections: usize,
    each: usize,
    target: &'static str,
) -> Result<Values> {
    let work = open(way, connections).await?.into_iter().map(|mut connection| async move {
        for _ in 0..each {
            let seed = fresh_seed();
            connection.get(&format!("/bytes?n={LARGE_BYTES}&seed={seed}")).await?;
        }
        Ok((connection, Vec::new()))
    });
    let (done, block) = measured(way, work.collect()).await?;
    close(done).await;
    Ok(per_byte(&block, (connections * each * LARGE_BYTES) as f64, target))
}

async fn events(way: &Way, streams: usize, each: usize) -> Result<Values> {
    let work = open(way, streams).await?.into_iter().map(|mut connection| async move {
        let (_, ages) = connection.events(&format!("/sse?n={each}&ms=20")).await?;
        Ok((connection, ages))
    });
    let (done, block) = measured(way, work.collect()).await?;
    let mut ages = close(done).await;
    let count = ages.len() as f64;
    Ok(vec![
        (Metric::new("CPU µs/event", Ratio::Plain, "1.3"), micros(block.cpu) / count),
        (Metric::new("p50 µs", Ratio::Plain, ""), micros(quantile(&mut ages, 0.5))),
        (Metric::new("p99 µs", Ratio::Plain, ""), micros(quantile(&mut ages, 0.99))),
    ])
}

/// Texts of 200 bytes that an origin sends back, one at a time on each connection.
async fn texts(way: &Way, connections: usize, each: usize) -> Result<Values> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(way).await?);
    }
    let work = open.into_iter().map(|mut connection| async move {
        let times = connection.texts(each).await?;
        Ok((connection, times))
    });
    let (done, block) = measured(way, work.collect()).await?;
    let mut times = close(done).await;
    let messages = 2.0 * times.len() as f64;
    Ok(vec![
        (Metric::new("CPU µs/message", Ratio::Plain, ""), micros(block.cpu) / messages),
        (Metric::new("echo p50 µs", Ratio::Plain, ""), micros(quantile(&mut times, 0.5))),
        (Metric::new("echo p99 µs", Ratio::Plain, ""), micros(quantile(&mut times, 0.99))),
    ])
}

/// What a block of work took.
struct Block {
    /// Of the measured process, until it had nothing left to do.
    cpu: Duration,
    wall: Duration,
}

/// Does all of `work` at once.
async fn measured<F, T>(way: &Way, work: Vec<F>) -> Result<(Vec<T>, Block)>
where
    F: Future<Output = io::Result<T>> + 'static,
    T: 'static,
{
    let before = settled_cpu(way.pid)?;
    let begun = Instant::now();
    let done = all(work).await?;
    let wall = begun.elapsed();
    let cpu = settled_cpu(way.pid)?.saturating_sub(before);
    Ok((done, Block { cpu, wall }))
}

/// Runs all of `work` at once, to the end.
pub(crate) async fn all<F, T>(work: Vec<F>) -> Result<Vec<T>>
where
    F: Future<Output = io::Result<T>> + 'static,
    T: 'static,
{
    let tasks: Vec<_> = work.into_iter().map(monoio::spawn).collect();
    let mut done = Vec::with_capacity(tasks.len());
    for task in tasks {
        done.push(task.await?);
    }
    Ok(done)
}

/// Connections that have carried an exchange already.
pub(crate) async fn open(way: &Way, count: usize) -> Result<Vec<Connection>> {
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = Connection::open(way).await?;
        connection.get("/small").await?;
        open.push(connection);
    }
    Ok(open)
}

/// Closes the connections; all the times they brought.
async fn close(done: Vec<(Connection, Vec<Duration>)>) -> Vec<Duration> {
    let mut all = Vec::new();
    for (connection, times) in done {
        all.extend(times);
        connection.close().await;
    }
    all
}

fn per_byte(block: &Block, bytes: f64, target: &'static str) -> Values {
    let cpu = block.cpu.as_secs_f64() * 1e9 / bytes;
    let rate = bytes / block.wall.as_secs_f64() / 1e6;
    vec![
        (Metric::new("CPU ns/byte", Ratio::Plain, target), cpu),
        (Metric::new("MB/s", Ratio::Plain, ""), rate),
    ]
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Another one each time, so that no two bodies are alike.
fn fresh_seed() -> u64 {
    thread_local! {
        static NEXT: Cell<u64> = const { Cell::new(0) };
    }
    NEXT.replace(NEXT.get() + 1)
}
