//! One thread's runtime on the driver that was asked for.

use std::future::Future;

use anyhow::Result;
use monoio::{FusionDriver, IoUringDriver, LegacyDriver, RuntimeBuilder};

use crate::role::Driver;

/// Entries of a ring: enough for what one thread has in the air here.
const RING_ENTRIES: u32 = 1024;

/// Runs `future` to its end on this thread.
pub(crate) fn block_on<T>(driver: Driver, future: impl Future<Output = T>) -> Result<T> {
    Ok(match driver {
        Driver::Auto => RuntimeBuilder::<FusionDriver>::new()
            .with_entries(RING_ENTRIES)
            .enable_timer()
            .build()?
            .block_on(future),
        Driver::IoUring => RuntimeBuilder::<IoUringDriver>::new()
            .with_entries(RING_ENTRIES)
            .enable_timer()
            .build()?
            .block_on(future),
        Driver::Epoll => {
            RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.block_on(future)
        }
    })
}
