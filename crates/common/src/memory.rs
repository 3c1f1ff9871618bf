//! Memory of the machine and of this process, in bytes, and the allocator's settings.
//!
//! The figures are read from `/proc`. On systems other than Linux they are `None`.

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// Allows this module to change the allocator's settings, which hold for the whole process. Call
/// it once at the start of a program; a library in another program must not.
pub fn allow_allocator_settings() {
    *lock(&SETTINGS) = Some(0);
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

/// Runs `load`, which loads a model, while glibc returns freed memory to the system.
///
/// A loading engine copies all weights and frees the copies one by one. By default glibc keeps more
/// and more of them, in gaps that nothing else fits into. Afterwards the settings are those to which
/// glibc adapts itself when a program frees large blocks. Does nothing unless
/// [`allow_allocator_settings`] was called, and on other systems.
pub fn while_loading<T>(load: impl FnOnce() -> T) -> T {
    let _settings = LoadSettings::start();
    load()
}

/// The number of loads that run; `None` if the settings must not be changed.
static SETTINGS: Mutex<Option<usize>> = Mutex::new(None);

/// The settings of the allocator while a model is loaded.
struct LoadSettings;

impl LoadSettings {
    fn start() -> Option<Self> {
        let mut loads = lock(&SETTINGS);
        let loads = loads.as_mut()?;
        *loads += 1;
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        if *loads == 1 {
            glibc::return_freed_memory();
        }
        Some(Self)
    }
}

impl Drop for LoadSettings {
    fn drop(&mut self) {
        if let Some(loads) = lock(&SETTINGS).as_mut() {
            *loads -= 1;
            #[cfg(all(target_os = "linux", target_env = "gnu"))]
            if *loads == 0 {
                glibc::return_freed_memory_rarely();
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The number is valid at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    /// The maximum that glibc accepts. Larger blocks are mapped one by one.
    const LARGEST_HEAP_BLOCK: i32 = 32 << 20;
    /// The size from which glibc maps blocks one by one, until it adapts itself.
    const INITIAL_HEAP_BLOCK: i32 = 128 << 10;

    pub(super) fn keep_freed_memory() {
        set(LARGEST_HEAP_BLOCK, i32::MAX);
    }

    /// Maps blocks one by one, so that the system gets them back when they are freed.
    pub(super) fn return_freed_memory() {
        set(INITIAL_HEAP_BLOCK, INITIAL_HEAP_BLOCK);
        trim();
    }

    /// Keeps most freed memory for later allocations, as glibc does by itself.
    pub(super) fn return_freed_memory_rarely() {
        trim();
        set(LARGEST_HEAP_BLOCK, 2 * LARGEST_HEAP_BLOCK);
    }

    #[allow(unsafe_code, reason = "mallopt has no safe wrapper")]
    fn set(largest_heap_block: i32, largest_free_end: i32) {
        // SAFETY: `mallopt` takes two integers by value and locks the heap itself.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, largest_heap_block);
            libc::mallopt(libc::M_TRIM_THRESHOLD, largest_free_end);
        }
    }

    /// Returns the free pages of the heap to the system.
    #[allow(unsafe_code, reason = "malloc_trim has no safe wrapper")]
    fn trim() {
        // SAFETY: `malloc_trim` takes an integer by value and locks the heap itself.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}
