//! This process's memory: how much it has, and what becomes of what it frees.
//!
//! Only Linux tells how much there is; elsewhere the answers are `None`.

use std::fs;

/// Bytes that are free for this process without pressing anything else out.
#[must_use]
pub fn available() -> Option<usize> {
    bytes("/proc/meminfo", "MemAvailable:")
}

/// Bytes of memory that the machine has.
#[must_use]
pub fn total() -> Option<usize> {
    bytes("/proc/meminfo", "MemTotal:")
}

/// Bytes that this process has in memory now.
#[must_use]
pub fn resident() -> Option<usize> {
    bytes("/proc/self/status", "VmRSS:")
}

/// The most bytes that this process has had in memory, since it began or since [`reset_peak`].
#[must_use]
pub fn peak() -> Option<usize> {
    bytes("/proc/self/status", "VmHWM:")
}

/// Lets [`peak`] begin at what there is now; whether that could be done.
#[must_use]
pub fn reset_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// A size that a file of the kernel's gives in kB on the line that starts with `label`.
fn bytes(file: &str, label: &str) -> Option<usize> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    let kilobytes: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Keeps freed memory for the next allocation instead of returning it to the system.
///
/// A training step frees all that it took and the next one takes as much again. By default glibc
/// hands the memory back in between, and every page of it costs a fault, and is zeroed, in the
/// thread that asks; the other threads wait. Call it before any work. On other systems it does
/// nothing.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::keep_freed_memory();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    /// The most that glibc accepts: larger blocks are mapped one by one.
    const LARGEST_HEAP_BLOCK: i32 = 32 << 20;

    #[allow(unsafe_code, reason = "there is no safe call for it")]
    pub(super) fn keep_freed_memory() {
        // SAFETY: `mallopt` takes a parameter's number and its value, and locks the heap itself.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK);
            libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        }
    }
}
