//! Memory of a process that stays for long.
#![allow(unsafe_code)]

/// Give back to the kernel what the allocator keeps for later (`man 3 malloc_trim`).
pub fn give_back() {
    // SAFETY: takes a number; what is in use is left alone.
    unsafe { libc::malloc_trim(0) };
}
