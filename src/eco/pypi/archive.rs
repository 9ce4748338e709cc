//! Just enough of ZIP to take one small member out of a hostile archive.
//!
//! Not the `zip` crate: it reserves memory for as many members as the archive claims (a 100 MB file that claims 100
//! million aborts the process) and keeps them all. This reads the directory once, keeps only what is asked for, and
//! finds archives the way Python's `zipfile` does, because that is how pip will see them.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use flate2::Crc;
use flate2::read::DeflateDecoder;

/// A member as the central directory has it.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: String,
    flags: u16,
    method: u16,
    crc: u32,
    packed_bytes: u64,
    bytes: u64,
    /// Of its local header, from the start of the file.
    offset: u64,
}

/// The members whose name `wanted` likes, in the directory's order, at most `limit`.
pub(super) fn members<R: Read + Seek>(
    reader: &mut R,
    limit: usize,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Member>, ZipError> {
    let directory = Directory::find(reader)?;
    reader.seek(SeekFrom::Start(directory.start))?;
    let mut entries = BufReader::with_capacity(DIRECTORY_BUFFER_BYTES, reader.take(directory.bytes));
    let mut read = 0;
    let mut found = Vec::new();
    while read < directory.bytes {
        let mut head = [0; 46];
        entries.read_exact(&mut head)?;
        if !head.starts_with(b"PK\x01\x02") {
            return Err(ZipError::Broken("a directory entry has no signature"));
        }
        let [name, extra, comment] = [28, 30, 32].map(|at| u16_at(&head, at));
        let mut tail = vec![0; usize::from(name) + usize::from(extra) + usize::from(comment)];
        entries.read_exact(&mut tail)?;
        read += (head.len() + tail.len()) as u64;
        let (name, tail) = tail.split_at(usize::from(name));
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if !wanted(name) {
            continue;
        }
        if found.len() == limit {
            return Err(ZipError::Broken("too many members of one name"));
        }
        found.push(member(&head, name, &tail[..usize::from(extra)], directory.shift)?);
    }
    Ok(found)
}

/// The content of a member, at most `limit` bytes of it: what the archive claims is not believed.
pub(super) fn read_member<R: Read + Seek>(
    reader: &mut R,
    member: &Member,
    limit: u64,
) -> Result<Vec<u8>, ZipError> {
    if member.flags & ENCRYPTED != 0 {
        return Err(ZipError::Unsupported("it is encrypted"));
    }
    if member.bytes > limit {
        return Err(ZipError::TooLarge);
    }
    reader.seek(SeekFrom::Start(member.offset))?;
    let mut head = [0; 30];
    reader.read_exact(&mut head)?;
    if !head.starts_with(b"PK\x03\x04") {
        return Err(ZipError::Broken("a member has no signature"));
    }
    reader.seek(SeekFrom::Current(i64::from(u16_at(&head, 26)) + i64::from(u16_at(&head, 28))))?;
    let packed = reader.take(member.packed_bytes);
    let mut content = Vec::new();
    match member.method {
        STORED => packed.take(limit + 1).read_to_end(&mut content)?,
        DEFLATED => DeflateDecoder::new(packed).take(limit + 1).read_to_end(&mut content)?,
        _ => return Err(ZipError::Unsupported("its compression is neither none nor deflate")),
    };
    if content.len() as u64 > limit {
        return Err(ZipError::TooLarge);
    }
    let mut crc = Crc::new();
    crc.update(&content);
    if content.len() as u64 != member.bytes || crc.sum() != member.crc {
        return Err(ZipError::Broken("a member has another size or checksum than the directory says"));
    }
    Ok(content)
}

struct Directory {
    start: u64,
    bytes: u64,
    /// How much later everything is than the archive says: whatever was put in front of it.
    shift: u64,
}

impl Directory {
    fn find<R: Read + Seek>(reader: &mut R) -> Result<Self, ZipError> {
        let len = reader.seek(SeekFrom::End(0))?;
        let tail_start = len.saturating_sub(TAIL_BYTES);
        reader.seek(SeekFrom::Start(tail_start))?;
        let mut tail = Vec::new();
        reader.take(TAIL_BYTES).read_to_end(&mut tail)?;
        let end = (0..(tail.len() + 1).saturating_sub(END_BYTES))
            .rev()
            .find(|&at| tail[at..].starts_with(b"PK\x05\x06"))
            .ok_or(ZipError::Broken("there is no end of a directory"))?;
        let record = &tail[end..];
        let (mut bytes, mut offset) = (u64::from(u32_at(record, 12)), u64::from(u32_at(record, 16)));
        let mut directory_end = end;
        if let Some(at) = end.checked_sub(LOCATOR_BYTES + END64_BYTES)
            && tail[at..].starts_with(b"PK\x06\x06")
            && tail[at + END64_BYTES..].starts_with(b"PK\x06\x07")
        {
            (bytes, offset) = (u64_at(&tail[at..], 40), u64_at(&tail[at..], 48));
            directory_end = at;
        }
        if bytes > DIRECTORY_BYTES {
            return Err(ZipError::TooLarge);
        }
        let outside = ZipError::Broken("the directory is outside of the file");
        let Some(start) = (tail_start + directory_end as u64).checked_sub(bytes) else { return Err(outside) };
        let Some(shift) = start.checked_sub(offset) else { return Err(outside) };
        Ok(Self { start, bytes, shift })
    }
}

fn member(head: &[u8; 46], name: &str, mut extra: &[u8], shift: u64) -> Result<Member, ZipError> {
    let [mut packed_bytes, mut bytes, mut offset] = [20, 24, 42].map(|at| u64::from(u32_at(head, at)));
    while extra.len() >= 4 {
        let (id, size) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let Some(field) = extra.get(4..4 + size) else { break };
        if id == ZIP64_FIELD {
            // Those that do not fit the entry, in this order.
            let mut values = field.chunks_exact(8);
            for value in [&mut bytes, &mut packed_bytes, &mut offset] {
                if *value == u64::from(u32::MAX) {
                    *value = u64_at(values.next().ok_or(ZipError::Broken("a zip64 field is too short"))?, 0);
                }
            }
        }
        extra = &extra[4 + size..];
    }
    let offset = offset.checked_add(shift).ok_or(ZipError::Broken("a member is outside of the file"))?;
    let (flags, method, crc) = (u16_at(head, 8), u16_at(head, 10), u32_at(head, 16));
    Ok(Member { name: name.to_owned(), flags, method, crc, packed_bytes, bytes, offset })
}

/// Little-endian; zero where the bytes end, which no caller lets happen.
fn le<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|b| b.first_chunk::<N>()).copied().unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(le(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(le(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(le(bytes, at))
}

const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const ENCRYPTED: u16 = 1;
const ZIP64_FIELD: u16 = 1;
const END_BYTES: usize = 22;
const LOCATOR_BYTES: usize = 20;
const END64_BYTES: usize = 56;

/// Where the end of the directory can be: both end records and the longest comment.
const TAIL_BYTES: u64 = 65_535 + (END_BYTES + LOCATOR_BYTES + END64_BYTES) as u64;

/// Largest directory that is read: half a million members; the largest known wheels have some 20,000.
const DIRECTORY_BYTES: u64 = 64 << 20;

const DIRECTORY_BUFFER_BYTES: usize = 64 << 10;

/// Why a member cannot be had.
#[derive(Debug)]
pub(super) enum ZipError {
    Io(io::Error),
    Broken(&'static str),
    Unsupported(&'static str),
    TooLarge,
}

impl From<io::Error> for ZipError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Broken("it ends too early"),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Self::Broken("it does not unpack"),
            _ => Self::Io(error),
        }
    }
}
