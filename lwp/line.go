package lwp

import (
	"strconv"
	"syscall"
	"time"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
)

// A Line puts a line of text together and writes it by one write(2):
//
//	var l lwp.Line
//	l.Str("tid ").Int(int64(tid)).Str(" at ").Hex(addr).Print()
//
// It is for threads, which have no fmt, and works on goroutines too. The zero
// Line is empty and ready for use; a Line belongs to one goroutine or thread at
// a time and must not be copied while it holds text. It takes lineSize bytes of
// the caller's stack and never touches the Go heap. The methods that append
// return the Line.
//
// A line longer than the Line itself moves to a mapping of its own, which is
// unmapped when the line is written or dropped. Should the kernel refuse that,
// the line ends there, and writing it returns the error.
//
// Source: write(2), pipe(7).
type Line struct {
	_    noCopy
	n    int           // bytes in use
	long uintptr       // the mapping that holds the line instead of buf, or 0
	size int           // of the mapping
	lost syscall.Errno // why the line is cut after n bytes, or 0
	buf  [lineSize - 32]byte
}

const lineSize = 512

// noCopy makes go vet's copylocks report copies of the struct that holds it.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// Println writes s and a newline to standard output, as Line.Print does.
func Println(s string) error {
	var l Line
	return l.Str(s).Print()
}

// Print writes the line and a newline to standard output; see WriteFD.
func (l *Line) Print() error { return l.WriteFD(1) }

// Eprint writes the line and a newline to standard error; see WriteFD.
func (l *Line) Eprint() error { return l.WriteFD(2) }

// WriteFD writes the line and a newline to fd and empties the Line, whatever
// comes of it. It waits until all is written, on a non-blocking fd too.
//
// The line goes out by one write(2), so it does not mix with what others
// write to the same file; on a pipe this holds for lines of up to 4096 bytes,
// the newline included. Only where the kernel takes a part of it, because the
// fd does not block or a signal came, do more calls follow.
//
// Context: goroutine or thread; a goroutine holds no P while it waits. A broken
// pipe leaves SIGPIPE pending on a thread.
// Errors: *Error (EBADF, EPIPE, ENOSPC, ...); some of the line can be written
// by then. *Error with ENOMEM for a line that was cut.
func (l *Line) WriteFD(fd int) error {
	b := l.all()
	b[l.n] = '\n'
	err := writeAll(fd, b[:l.n+1])
	if l.lost != 0 && err == nil {
		err = failed(opMmap, l.lost)
	}
	l.Reset()
	return err
}

// Reset drops the line. It is needed only for a line that is not to be written.
func (l *Line) Reset() {
	if l.long != 0 {
		memoryCall(unix.SYS_MUNMAP, l.long, uintptr(l.size), 0, 0)
	}
	l.n, l.long, l.size, l.lost = 0, 0, 0, 0
}

// Len returns the length of the line in bytes.
func (l *Line) Len() int { return l.n }

// Str appends s.
func (l *Line) Str(s string) *Line {
	if b := l.room(len(s)); b != nil {
		l.n += copy(b[:len(s)], s)
	}
	return l
}

// Byte appends c.
func (l *Line) Byte(c byte) *Line {
	if b := l.room(1); b != nil {
		b[:1][0] = c
		l.n++
	}
	return l
}

// Int appends v in decimal.
func (l *Line) Int(v int64) *Line {
	if b := l.room(20); b != nil {
		l.n += len(strconv.AppendInt(b, v, 10))
	}
	return l
}

// Uint appends v in decimal.
func (l *Line) Uint(v uint64) *Line {
	if b := l.room(20); b != nil {
		l.n += len(strconv.AppendUint(b, v, 10))
	}
	return l
}

// Hex appends v in hexadecimal, with 0x before it.
func (l *Line) Hex(v uint64) *Line {
	if b := l.room(18); b != nil {
		l.n += len(strconv.AppendUint(append(b, "0x"...), v, 16))
	}
	return l
}

// Ptr appends the address p as Hex does.
func (l *Line) Ptr(p unsafe.Pointer) *Line { return l.Hex(uint64(uintptr(p))) }

// Float appends v as fmt.Print does: the shortest text that reads back as v.
func (l *Line) Float(v float64) *Line {
	// At most 24 bytes: sign, 17 digits, point, e-308.
	if b := l.room(24); b != nil {
		l.n += len(strconv.AppendFloat(b, v, 'g', -1, 64))
	}
	return l
}

// Bool appends true or false.
func (l *Line) Bool(v bool) *Line {
	if v {
		return l.Str("true")
	}
	return l.Str("false")
}

// Dur appends d as d.String does, which allocates.
func (l *Line) Dur(d time.Duration) *Line {
	u := uint64(d)
	if d < 0 {
		l.Byte('-')
		u = -u
	}
	const (
		us = uint64(time.Microsecond)
		ms = uint64(time.Millisecond)
		s  = uint64(time.Second)
		m  = uint64(time.Minute)
		h  = uint64(time.Hour)
	)
	switch {
	case u == 0:
		return l.Str("0s")
	case u < us:
		return l.Uint(u).Str("ns")
	case u < ms:
		return l.fraction(u, us).Str("µs")
	case u < s:
		return l.fraction(u, ms).Str("ms")
	}
	if u >= h {
		l.Uint(u / h).Byte('h')
	}
	if u >= m {
		l.Uint(u % h / m).Byte('m')
	}
	return l.fraction(u%m, s).Byte('s')
}

// fraction appends v/unit, for a unit that is a power of ten, without zeros at
// the end.
func (l *Line) fraction(v, unit uint64) *Line {
	l.Uint(v / unit)
	v %= unit
	if v != 0 {
		l.Byte('.')
	}
	for v != 0 {
		unit /= 10
		l.Byte('0' + byte(v/unit))
		v %= unit
	}
	return l
}

// Quote appends s as strconv.Quote writes it.
func (l *Line) Quote(s string) *Line {
	l.Byte('"')
	for len(s) > 0 {
		// In pieces, cut between runes, so that quoting needs no more than
		// this: a byte becomes at most four (\x00), and the quotes.
		const piece = 32
		var quoted [4*piece + 2]byte
		n := len(s)
		if n > piece {
			n = piece
			for back := range utf8.UTFMax {
				if utf8.RuneStart(s[piece-back]) {
					n = piece - back
					break
				}
			}
		}
		q := strconv.AppendQuote(quoted[:0], s[:n])
		q = q[1 : len(q)-1]
		if b := l.room(len(q)); b != nil {
			l.n += copy(b[:len(q)], q)
		}
		s = s[n:]
	}
	return l.Byte('"')
}

// all returns the memory of the line.
func (l *Line) all() []byte {
	if l.long != 0 {
		return unsafe.Slice((*byte)(pointer(l.long)), l.size)
	}
	return l.buf[:]
}

// room returns the free part of the line as an empty slice with a capacity of
// n bytes or more, or nil if there is none to be had. It keeps one byte back
// for the newline.
func (l *Line) room(n int) []byte {
	if l.lost != 0 {
		return nil
	}
	b := l.all()
	if n > len(b)-1-l.n {
		if !l.grow(n) {
			return nil
		}
		b = l.all()
	}
	return b[l.n:l.n]
}

// grow moves the line to a mapping with room for n bytes more and a newline.
func (l *Line) grow(n int) bool {
	size := (uintptr(l.n+1+n)*2 + pageMask) &^ pageMask
	base, errno := memoryCall(unix.SYS_MMAP, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if errno != 0 {
		l.lost = errno
		return false
	}
	copy(unsafe.Slice((*byte)(pointer(base)), size), l.all()[:l.n])
	if l.long != 0 {
		memoryCall(unix.SYS_MUNMAP, l.long, uintptr(l.size), 0, 0)
	}
	l.long, l.size = base, int(size)
	return true
}

// writeAll writes b, which is not empty, to fd.
func writeAll(fd int, b []byte) error {
	if fd != int(int32(fd)) { // the kernel would take the lower half for the fd
		return failed(opWrite, unix.EBADF)
	}
	for len(b) > 0 {
		n, errno := write(fd, b)
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			if errno := waitWritable(fd); errno != 0 && errno != unix.EINTR {
				return failed(opPpoll, errno)
			}
		case errno != 0:
			return failed(opWrite, errno)
		case n == 0: // no file that keeps to the rules does this; do not spin on one
			return failed(opWrite, unix.EIO)
		default:
			b = b[n:]
		}
	}
	return nil
}

func write(fd int, b []byte) (n int, errno syscall.Errno) {
	var r uintptr
	if asm.Current() != nil {
		r, _, errno = unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	} else {
		r, _, errno = unix.Syscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	}
	return int(r), errno
}

// waitWritable waits until fd takes something, or is in a state in which write
// says what is wrong. arm64 has only the ppoll form of poll(2).
func waitWritable(fd int) (errno syscall.Errno) {
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT}
	if asm.Current() != nil {
		_, _, errno = unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, 0, 0, 0, 0)
	} else {
		_, _, errno = unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, 0, 0, 0, 0)
	}
	return errno
}
