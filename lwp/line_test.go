package lwp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lineRoom is the length in bytes of a line that needs no mapping.
const lineRoom = len(Line{}.buf) - 1

// linePipe returns a pipe whose write end is a plain descriptor.
func linePipe(t *testing.T) (r *os.File, w int) {
	t.Helper()
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r = os.NewFile(uintptr(fd[0]), "pipe")
	t.Cleanup(func() { r.Close() })
	return r, fd[1]
}

func TestLineWritesOtherBytes(t *testing.T) {
	r, w := linePipe(t)
	var l Line
	err := l.Str("tid ").Int(-42).Byte(' ').Uint(7).Str(" at ").Hex(0xff).Byte(' ').Ptr(nil).Str(" f ").Float(1.5).
		Byte(' ').Bool(true).Bool(false).Byte(0).Byte('\n').Dur(1500 * time.Millisecond).Quote("a\"\n").Str("").WriteFD(w)
	if err != nil {
		t.Fatal(err)
	}
	if l.Len() != 0 {
		t.Errorf("%d bytes left in the line", l.Len())
	}
	if err := l.WriteFD(w); err != nil {
		t.Fatal(err)
	}
	l.Str("dropped").Reset()
	if err := l.Str("again").WriteFD(w); err != nil {
		t.Fatal(err)
	}
	unix.Close(w)
	got, err := io.ReadAll(r)
	want := "tid -42 7 at 0xff 0x0 f 1.5 truefalse\x00\n1.5s\"a\\\"\\n\"\n\nagain\n"
	if string(got) != want || err != nil {
		t.Errorf("got  %q\nwant %q, %v", got, want, err)
	}
}

func TestLineLosesWhatDoesNotFit(t *testing.T) {
	for _, n := range []int{lineRoom - 1, lineRoom, lineRoom + 1, 511, 512, 513, 4095, 4096, 8191, 65535, 65536, 1 << 20} {
		want := make([]byte, n)
		for i := range want {
			want[i] = 'a' + byte(i%23)
		}
		// All at once, in pieces, and byte by byte.
		for _, piece := range []int{n, 100, 7, 1} {
			r, w := linePipe(t)
			done := make(chan []byte)
			go func() {
				got, _ := io.ReadAll(r)
				done <- got
			}()
			var l Line
			for s := string(want); len(s) > 0; s = s[min(piece, len(s)):] {
				l.Str(s[:min(piece, len(s))])
			}
			if l.Len() != n {
				t.Errorf("%d bytes by %d: Len is %d", n, piece, l.Len())
			}
			if (l.long != 0) != (n > lineRoom) {
				t.Errorf("%d bytes by %d: own mapping at %#x", n, piece, l.long)
			}
			err1 := l.WriteFD(w)
			err2 := l.Str("short again").WriteFD(w)
			unix.Close(w)
			if got := <-done; err1 != nil || err2 != nil || string(got) != string(want)+"\nshort again\n" {
				t.Errorf("%d bytes by %d: %d bytes arrived, %v, %v", n, piece, len(got), err1, err2)
			}
		}
	}
}

func TestLineLeaksMappings(t *testing.T) {
	before, _ := statm(t)
	var l Line
	long := strings.Repeat("x", 100_000)
	for i := range 10_000 {
		l.Str(long[:60_000]).Str(long)
		if i%2 == 0 {
			l.Reset()
		} else if err := l.WriteFD(-1); err == nil {
			t.Fatal("no error")
		}
	}
	if after, _ := statm(t); after > before+1<<29 {
		t.Errorf("address space is up by %d MiB", (after-before)>>20)
	}
}

func TestLineTakesSeveralWrites(t *testing.T) {
	// A message of such a socket is what one write wrote.
	fd, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd[0])
	defer unix.Close(fd[1])
	b := make([]byte, 128<<10)
	for _, n := range []int{0, 1, 100, lineRoom, lineRoom + 1, 4095, 60_000} {
		var l Line
		for range n {
			l.Byte('x')
		}
		if err := l.WriteFD(fd[1]); err != nil {
			t.Fatal(err)
		}
		if got, err := unix.Read(fd[0], b); err != nil || got != n+1 {
			t.Errorf("a line of %d bytes and its newline: the first write wrote %d, %v", n, got, err)
			break
		}
	}
}

// A lineWriter writes numbered lines of many lengths to fd.
type lineWriter struct {
	fd, id, n int
	max       int // length of the longest, about
	failed    int
	tid       atomic.Int32 // set by the test's own function
}

func (w *lineWriter) run() {
	for i := range w.n {
		var l Line
		l.Str("w").Int(int64(w.id)).Byte(' ').Int(int64(i)).Byte(' ')
		for range (i * 997) % (w.max - 30) {
			l.Byte('a' + byte(w.id))
		}
		if l.WriteFD(w.fd) != nil {
			w.failed++
		}
	}
}

// checkLines reads what writers wrote to r, up to its end.
func checkLines(t *testing.T, r io.Reader, writers []lineWriter) {
	t.Helper()
	next := make([]int, len(writers))
	s := bufio.NewReader(r)
	for {
		line, err := s.ReadString('\n')
		if err == io.EOF && line == "" {
			break
		}
		if err != nil {
			t.Errorf("%.100q: %v", line, err)
			return
		}
		var id, i int
		if _, err := fmt.Sscanf(line, "w%d %d ", &id, &i); err != nil || id < 0 || id >= len(next) {
			t.Errorf("line %.100q: %v", line, err)
			return
		}
		w := &writers[id]
		want := fmt.Sprintf("w%d %d %s\n", id, i, bytes.Repeat([]byte{'a' + byte(id)}, (i*997)%(w.max-30)))
		if line != want || i != next[id] {
			t.Errorf("line %.100q, want number %d of writer %d", line, next[id], id)
			return
		}
		next[id]++
	}
	for id := range next {
		if next[id] != writers[id].n {
			t.Errorf("writer %d: %d of %d lines", id, next[id], writers[id].n)
		}
	}
}

func TestLinesOfSeveralWritersMix(t *testing.T) {
	n := 20_000
	if testing.Short() {
		n = 1000
	}
	for _, size := range []int{lineRoom, 4095} {
		r, w := linePipe(t)
		writers := make([]lineWriter, 4)
		for i := range writers {
			writers[i] = lineWriter{fd: w, id: i, n: n / (1 + size/1000), max: size}
		}
		done := make(chan bool)
		go func() {
			together((*lineWriter).run, writers)
			unix.Close(w)
			close(done)
		}()
		checkLines(t, r, writers)
		r.Close() // lets the writers end if the check has failed
		<-done
		for i := range writers {
			if writers[i].failed != 0 {
				t.Errorf("writer %d: %d errors", i, writers[i].failed)
			}
		}
	}
}

// The pipe holds a page, so most lines meet a full one and the long ones are
// written in parts; a signal interrupts the waiting.
func TestLineLosesBytesToFullPipe(t *testing.T) {
	r, w := linePipe(t)
	if err := unix.SetNonblock(w, true); err != nil {
		t.Fatal(err)
	}
	size, err := unix.FcntlInt(uintptr(w), unix.F_SETPIPE_SZ, os.Getpagesize())
	if err != nil {
		t.Skipf("F_SETPIPE_SZ: %v", err)
	}
	writers := []lineWriter{{fd: w, n: 100, max: 4 * size}}
	done := make(chan bool)
	go func() {
		together(func(w *lineWriter) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			w.tid.Store(int32(unix.Gettid()))
			w.run()
			w.tid.Store(0)
		}, writers)
		unix.Close(w)
		close(done)
	}()
	// Let it fill the pipe and wait there.
	for n, same := -1, 0; same < 3; {
		time.Sleep(5 * time.Millisecond)
		was := n
		if n, err = unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ); err != nil {
			t.Fatal(err)
		}
		if n == was && n > 0 {
			same++
		}
	}
	for range 20 {
		if tid := writers[0].tid.Load(); tid == 0 {
			t.Error("the writer did not wait")
		} else if err := unix.Tgkill(os.Getpid(), int(tid), unix.SIGURG); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Millisecond)
	}
	checkLines(t, r, writers)
	r.Close() // lets the writer end if the check has failed
	<-done
	if writers[0].failed != 0 {
		t.Errorf("%d errors", writers[0].failed)
	}
}

func TestLineHidesErrors(t *testing.T) {
	r, w := linePipe(t)
	var l Line
	check := func(what string, fd int, want syscall.Errno) {
		t.Helper()
		for _, n := range []int{0, 10, 5000} {
			err := l.Str(strings.Repeat("x", n)).WriteFD(fd)
			if e, ok := err.(*Error); !ok || e.Op != "write" || e.Errno != want || !errors.Is(err, want) {
				t.Errorf("%s, %d bytes: %v", what, n, err)
			}
			if l.Len() != 0 {
				t.Errorf("%s: %d bytes left in the line", what, l.Len())
			}
		}
	}
	check("read end", int(r.Fd()), unix.EBADF)
	r.Close()
	check("broken pipe", w, unix.EPIPE)
	unix.Close(w)
	check("closed fd", w, unix.EBADF)
	check("fd -1", -1, unix.EBADF)
	// Not what the kernel sees in the lower half.
	_, w = linePipe(t)
	defer unix.Close(w)
	check("fd beyond 32 bits", 1<<32+w, unix.EBADF)
	check("fd below 32 bits", math.MinInt64+w, unix.EBADF)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	check("/dev/full", int(full.Fd()), unix.ENOSPC)
}

func TestLineHidesThatItWasCut(t *testing.T) {
	r, w := linePipe(t)
	var l Line
	l.Str("head")
	if l.room(1<<56) != nil { // more than the address space holds
		t.Fatal("the kernel gave 64 PiB")
	}
	err := l.Str("tail").Int(1).Quote("q").WriteFD(w)
	if e, ok := err.(*Error); !ok || e.Op != "mmap" || e.Errno != unix.ENOMEM {
		t.Errorf("%v", err)
	}
	if err := l.Str("next").WriteFD(w); err != nil {
		t.Errorf("the line after: %v", err)
	}
	unix.Close(w)
	if got, _ := io.ReadAll(r); string(got) != "head\nnext\n" {
		t.Errorf("%q", got)
	}
}

func TestLineAllocates(t *testing.T) {
	null, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	long := strings.Repeat("é\x00", 3000)
	floats := []float64{0, 1.5, 1e6, 1.0 / 3, -math.MaxFloat64, math.SmallestNonzeroFloat64, 2.2250738585072014e-308, math.NaN(), math.Inf(-1), 1e21, 123456789e200}
	for name, fn := range map[string]func() error{
		"Str":   func() error { var l Line; return l.Str(long[:100]).WriteFD(null) },
		"long":  func() error { var l Line; return l.Str(long).Str(long).WriteFD(null) },
		"Byte":  func() error { var l Line; return l.Byte(200).WriteFD(null) },
		"Int":   func() error { var l Line; return l.Int(math.MinInt64).Int(12345).WriteFD(null) },
		"Uint":  func() error { var l Line; return l.Uint(math.MaxUint64).WriteFD(null) },
		"Hex":   func() error { var l Line; return l.Hex(math.MaxUint64).Ptr(unsafe.Pointer(&l)).WriteFD(null) },
		"Bool":  func() error { var l Line; return l.Bool(true).Bool(false).WriteFD(null) },
		"Dur":   func() error { var l Line; return l.Dur(math.MinInt64).Dur(1001).Dur(0).WriteFD(null) },
		"Quote": func() error { var l Line; return l.Quote(long[:90]).Quote("plain").WriteFD(null) },
		"Float": func() error {
			var l Line
			for _, f := range floats {
				l.Float(f)
			}
			return l.WriteFD(null)
		},
		"error": func() error {
			var l Line
			if l.Str("x").WriteFD(-1) == nil {
				return errors.New("no error")
			}
			return nil
		},
		"reset": func() error { var l Line; l.Str(long).Reset(); return nil },
	} {
		if n := testing.AllocsPerRun(100, func() {
			if err := fn(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v Go allocations", name, n)
		}
	}
}

// A lineKinds writes a line with everything that can be in one, and its own
// number, n times.
type lineKinds struct {
	fd, id, n int
	text      string
	failed    int
}

func (k *lineKinds) run() {
	for range k.n {
		var l Line
		l.Int(int64(k.id)).Byte(' ').Int(math.MinInt64).Uint(7).Hex(0xbeef).Ptr(nil).Bool(true).Byte('x').
			Dur(-90*time.Minute - 1).Float(1.0 / 3).Float(-math.MaxFloat64).Float(2.5e-310).Float(1e5).Str(k.text).Quote(k.text)
		if l.WriteFD(k.fd) != nil || l.Str(k.text).WriteFD(-1) == nil {
			k.failed++
		}
	}
}

func TestLineFailsWhileCollecting(t *testing.T) {
	var stop atomic.Bool
	defer stop.Store(true)
	go func() {
		for !stop.Load() {
			runtime.GC()
		}
	}()
	r, w := linePipe(t)
	done := make(chan string)
	go func() {
		got, _ := io.ReadAll(r)
		done <- string(got)
	}()
	text := strings.Repeat("text\x00é ", 100) // moves the line to a mapping
	writers := make([]lineKinds, 2)
	for i := range writers {
		writers[i] = lineKinds{fd: w, id: i, n: 500, text: text}
	}
	together((*lineKinds).run, writers)
	unix.Close(w)
	got := <-done
	for i, k := range writers {
		want := fmt.Sprintf("%d %d70xbeef0x0truex%v%v%v%v%v%s%q\n", i, math.MinInt64, -90*time.Minute-1, 1.0/3, -math.MaxFloat64, 2.5e-310, 1e5, text, text)
		if n := strings.Count(got, want); n != k.n || k.failed != 0 {
			t.Errorf("writer %d: %d of %d lines, %d errors; want %.200q in %.200q", i, n, k.n, k.failed, want, got)
		}
	}
}

func TestLineMissesStandardOutput(t *testing.T) {
	const env = "LWP_TEST_LINE"
	if os.Getenv(env) != "" {
		var l Line
		err1 := l.Str("out ").Int(1).Print()
		err2 := l.Str("err ").Int(2).Eprint()
		err3 := Println("line")
		err4 := Println(strings.Repeat("long", 1000))
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(0)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestLineMissesStandardOutput$")
	cmd.Env = append(os.Environ(), env+"=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if errors.Is(err, syscall.ENOEXEC) {
		t.Skip("an emulated program cannot start itself without binfmt_misc")
	}
	if want := "out 1\nline\n" + strings.Repeat("long", 1000) + "\n"; stdout.String() != want || stderr.String() != "err 2\n" || err != nil {
		t.Errorf("stdout %.100q, stderr %.100q, %v", stdout.String(), stderr.String(), err)
	}
}
