//! What the kernel says of a process, and what to make of many numbers.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::time::ClockId;
use nix::unistd::Pid;

/// A process that uses less than [`QUIET_CPU`] in such a time is taken to have finished its work.
const QUIET_TIME: Duration = Duration::from_millis(40);
const QUIET_CPU: Duration = Duration::from_micros(300);
/// It has this many such times.
const QUIET_TIMES_MAX: usize = 250;

/// CPU time of a process so far, user and system, all threads, those that ended too. (The clock
/// counts in nanoseconds what `/proc/PID/task/*/schedstat` does.)
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.try_into()?))?;
    Ok(clock.now()?.into())
}

/// The same once the process has nothing left to do: what it puts off is work, too.
pub(crate) fn settled_cpu(pid: u32) -> Result<Duration> {
    let mut before = cpu(pid)?;
    for _ in 0..QUIET_TIMES_MAX {
        sleep(QUIET_TIME);
        let now = cpu(pid)?;
        if now.saturating_sub(before) < QUIET_CPU {
            return Ok(now);
        }
        before = now;
    }
    bail!("process {pid} does not come to rest")
}

/// Resident memory of a process in bytes: now, and at its peak.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    pub(crate) peak: u64,
}

pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let bytes = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim_end_matches("kB").trim().parse::<u64>().ok());
        Ok(kib.with_context(|| format!("no {name} in {status}"))? * 1024)
    };
    Ok(Memory { now: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
}

/// The value below which this share of `values` lies; `values` need not be sorted.
pub(crate) fn quantile(values: &mut [Duration], share: f64) -> Duration {
    values.sort_unstable();
    let index = share * values.len().saturating_sub(1) as f64;
    let found = values.iter().enumerate().find(|(at, _)| *at as f64 >= index);
    found.map_or(Duration::ZERO, |(_, value)| *value)
}

/// The middle one; of two, the lower.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}
