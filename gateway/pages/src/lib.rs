//! The program's memory: its allocator, and the pages of its file that only its start needed.
//!
//! Owns the workspace's only `unsafe`. Reading flags, decoding a first configuration and building tables touch most of a program once;
//! those pages stay mapped for good, and every process counts them as its own. Pages of a file can be dropped at any time: the kernel
//! maps them again from its cache when they are used. Used by `gateway/proxy` once, when the first configuration serves.

use mimalloc::MiMalloc;
use nix::sys::mman::{MmapAdvise, madvise};
use std::{
    alloc::{GlobalAlloc, Layout},
    ffi::c_void,
    fs, io,
    ptr::NonNull,
};

/// mimalloc, asked without an alignment where every block has it anyway: asked with one, it takes more than was asked for and a
/// longer way for all that is larger than a kibibyte, and for some of the rest.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allocator;

/// What every block of mimalloc is aligned to, the smallest included.
const ALIGNED: usize = 8;

// SAFETY: every call is mimalloc's own for the same layout. Without an alignment its blocks are aligned to their smallest size,
// eight bytes, and a block may be freed and resized whichever way it was asked for.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ALIGNED {
            // SAFETY: any size may be asked for; null says that there is no memory, here and there.
            unsafe { libmimalloc_sys::mi_malloc(layout.size()) }.cast()
        } else {
            // SAFETY: the caller's promises are passed on.
            unsafe { MiMalloc.alloc(layout) }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ALIGNED {
            // SAFETY: as above.
            unsafe { libmimalloc_sys::mi_zalloc(layout.size()) }.cast()
        } else {
            // SAFETY: the caller's promises are passed on.
            unsafe { MiMalloc.alloc_zeroed(layout) }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on; all blocks are mimalloc's.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() <= ALIGNED {
            // SAFETY: the block is one of mimalloc's, of this layout.
            unsafe { libmimalloc_sys::mi_realloc(block.cast(), size) }.cast()
        } else {
            // SAFETY: the caller's promises are passed on.
            unsafe { MiMalloc.realloc(block, layout, size) }
        }
    }
}

/// A mapped part of the program's file that nothing was ever written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    start: usize,
    length: usize,
}

/// Drops the mapped pages of the program's own file, code and constants, that are the same as in the file. Returns how many
/// bytes were looked after; what is in use comes back page by page.
///
/// # Errors
/// When the kernel does not tell the mappings, or refuses; nothing is lost then.
pub fn give_back() -> io::Result<usize> {
    // Both places spell a file that was replaced the same way.
    let program = fs::read_link("/proc/self/exe")?;
    let program = program.to_str().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let parts = untouched(&fs::read_to_string("/proc/self/smaps")?, program);
    for part in &parts {
        drop_pages(*part)?;
    }
    Ok(parts.iter().map(|part| part.length).sum())
}

#[allow(unsafe_code)]
fn drop_pages(part: Part) -> io::Result<()> {
    let Some(start) = NonNull::new(part.start as *mut c_void) else { return Ok(()) };
    // SAFETY: the part is a private mapping of the program's file that cannot be written and holds no page of its own, so each
    // page reads the same before and after. The program's file is mapped once, at the start, and never unmapped, so the
    // addresses still mean what they meant when they were read.
    unsafe { madvise(start, part.length, MmapAdvise::MADV_DONTNEED) }.map_err(io::Error::from)
}

/// Parts of a file in the words of `/proc/PID/smaps` (proc_pid_smaps(5)): private, not writable, and without pages that differ
/// from the file, such as relocated addresses or a debugger's breakpoints.
fn untouched(smaps: &str, file: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(of) = heading(line) {
            current = of.filter(|(_, path)| *path == file).map(|(part, _)| part);
        } else if let (Some(part), Some(own)) = (current, line.strip_prefix("Anonymous:")) {
            if own.trim() == "0 kB" {
                parts.push(part);
            }
            current = None;
        }
    }
    parts
}

/// The first line of a mapping; `Some(None)` when its pages may be written or shared.
fn heading(line: &str) -> Option<Option<(Part, &str)>> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let (rights, rest) = rest.split_once(' ')?;
    let path = rest.splitn(4, ' ').nth(3).unwrap_or_default().trim_start();
    let fits = rights.len() == 4 && rights.starts_with('r') && !rights.contains('w') && rights.ends_with('p');
    Some((fits && end > start).then_some((Part { start, length: end.saturating_sub(start) }, path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d0c0000000-55d0c0010000 r--p 00000000 fe:00 131 /usr/bin/a b
Size:                 64 kB
Anonymous:             0 kB
55d0c0010000-55d0c0030000 r-xp 00010000 fe:00 131                        /usr/bin/a b
Anonymous:             0 kB
VmFlags: rd ex mr mw me
55d0c0030000-55d0c0040000 r--p 00030000 fe:00 131                        /usr/bin/a b
Anonymous:             8 kB
55d0c0040000-55d0c0050000 rw-p 00040000 fe:00 131                        /usr/bin/a b
Anonymous:             0 kB
7f0000000000-7f0000010000 r-xp 00000000 fe:00 9                          /usr/lib/libc.so.6
Anonymous:             0 kB
7f0000020000-7f0000030000 r--s 00000000 fe:00 131                        /usr/bin/a b
Anonymous:             0 kB
7f0000040000-7f0000050000 r--p 00000000 00:00 0
Anonymous:             0 kB
";

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    /// Of every size and alignment, from all four calls: aligned, apart from each other, and with their contents.
    #[test]
    #[allow(unsafe_code)]
    fn blocks_are_aligned_and_keep_what_is_in_them() {
        let mut blocks = Vec::new();
        for align in [1, 2, 4, 8, 16, 32, 64, 4096] {
            for size in (1..200).chain([256, 1000, 1024, 1025, 1500, 4096, 5432, 70_000]) {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: the layout is not empty, and each block is used within it and freed once.
                unsafe {
                    let zeroed = ALLOCATOR.alloc_zeroed(layout);
                    assert!((0..size).all(|at| *zeroed.add(at) == 0));
                    let block = ALLOCATOR.alloc(layout);
                    block.write_bytes(7, size);
                    let larger = ALLOCATOR.realloc(block, layout, size * 2);
                    assert!((0..size).all(|at| *larger.add(at) == 7));
                    larger.write_bytes(9, size * 2);
                    assert!((0..size).all(|at| *zeroed.add(at) == 0), "no block lies in another");
                    for (block, size) in [(zeroed, size), (larger, size * 2)] {
                        assert_eq!(block.addr() % align, 0, "{size} bytes, aligned to {align}");
                        blocks.push((block, Layout::from_size_align(size, align).unwrap()));
                    }
                }
            }
        }
        for (block, layout) in blocks {
            // SAFETY: as above.
            unsafe { ALLOCATOR.dealloc(block, layout) }
        }
    }

    #[test]
    fn only_what_is_as_in_the_programs_file_is_given_back() {
        let part = |start, length| Part { start, length };
        assert_eq!(
            untouched(SMAPS, "/usr/bin/a b"),
            [part(0x55d0_c000_0000, 0x1_0000), part(0x55d0_c001_0000, 0x2_0000)]
        );
        assert_eq!(untouched("nonsense\nAnonymous: 0 kB\n", "/usr/bin/a b"), []);
    }

    #[test]
    fn the_program_goes_on_with_fewer_pages() {
        let resident = || {
            let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
            let program = fs::read_link("/proc/self/exe").unwrap();
            let mut ours = false;
            let mut sum = 0;
            for line in smaps.lines() {
                match heading(line) {
                    Some(of) => ours = of.is_some_and(|(_, path)| path == program.to_str().unwrap()),
                    None if ours => {
                        let number = line.strip_prefix("Rss:").and_then(|rest| rest.trim().strip_suffix(" kB"));
                        sum += number.map_or(0, |number| number.parse::<u64>().unwrap());
                    }
                    None => {}
                }
            }
            sum
        };
        let before = resident();
        assert!(give_back().unwrap() > 0);
        assert!(resident() < before, "pages are given back");
        assert_eq!(untouched(SMAPS, "/usr/bin/a b").len(), 2, "and the code that was given back still runs");
    }
}
