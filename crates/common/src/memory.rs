//! Memory of the machine and of this process, in bytes, and the allocator's settings.
//!
//! The figures are read from `/proc`. On systems other than Linux they are `None`.

use std::fs;

/// Returns the memory that can be allocated without swapping (`MemAvailable`).
#[must_use]
pub fn available() -> Option<usize> {
    bytes("/proc/meminfo", "MemAvailable:")
}

/// Returns the memory of the machine (`MemTotal`).
#[must_use]
pub fn total() -> Option<usize> {
    bytes("/proc/meminfo", "MemTotal:")
}

/// Returns the current resident set size of this process (`VmRSS`).
#[must_use]
pub fn resident() -> Option<usize> {
    bytes("/proc/self/status", "VmRSS:")
}

/// Returns the peak resident set size since the start or since [`reset_peak`] (`VmHWM`).
#[must_use]
pub fn peak() -> Option<usize> {
    bytes("/proc/self/status", "VmHWM:")
}

/// Resets [`peak`] to the current size. Returns whether the system supports that.
#[must_use]
pub fn reset_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Returns the size in bytes from the line of a `/proc` file that starts with `label` and is in kB.
fn bytes(file: &str, label: &str) -> Option<usize> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    let kilobytes: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Tells glibc to keep freed memory for later allocations. Call it once at the start of the
/// process.
///
/// A training step frees all its memory, and the next step allocates as much again. By default
/// glibc returns the memory to the system in between. Every page then costs a page fault and is
/// zeroed in the allocating thread while the other threads wait. Does nothing on other systems.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::keep_freed_memory();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    /// The maximum that glibc accepts. Larger blocks are mapped one by one.
    const LARGEST_HEAP_BLOCK: i32 = 32 << 20;

    #[allow(unsafe_code, reason = "mallopt has no safe wrapper")]
    pub(super) fn keep_freed_memory() {
        // SAFETY: `mallopt` takes two integers by value and locks the heap itself.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK);
            libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        }
    }
}
