package bench

import (
	"testing"

	"golang.org/x/sys/unix"

	"lwprt/tls"
)

// BenchmarkTLSGet: one op is to read the calling thread's own value.
//
//   - lwp, op=get: Key.Get, which also says whether the key is set.
//   - lwp, op=current: tls.Current alone, the part that tells a thread from a
//     goroutine; goroutine, op=current: the same where there is nothing to find.
//   - pthread, op=get: pthread_getspecific. It assumes a thread of the C
//     library and does not check; the value is behind a pointer.
func BenchmarkTLSGet(b *testing.B) { compare(b, tlsRows) }

var tlsRows = []row{
	{"impl=lwp/op=get", getOnThread},
	{"impl=pthread/op=get", inC("tls")},
	{"impl=lwp/op=current", func(b *testing.B) error { return onThread(b, getCurrent) }},
	{"impl=goroutine/op=current", currentOnGoroutine},
}

func getOnThread(b *testing.B) error {
	key, err := tls.NewKey[int](nil)
	if err != nil {
		return err
	}
	theKey = key
	err = onThread(b, getKey)
	if e := key.Delete(); err == nil {
		err = e
	}
	return err
}

var theKey tls.Key[int]

func getKey(j *job) {
	k := theKey
	good := 0
	if k.Set(1) != nil {
		good = -1
	}
	j.pass()
	for range j.n {
		if v, ok := k.Get(); ok {
			good += v
		}
	}
	j.good = good
}

func getCurrent(j *job) {
	me := tls.Current()
	j.pass()
	good := 0
	for range j.n {
		if t := tls.Current(); t == me && t != nil {
			good++
		}
	}
	j.good = good
}

func currentOnGoroutine(b *testing.B) error {
	good := 0
	for b.Loop() {
		if tls.Current() == nil {
			good++
		}
	}
	return did(good, b.N)
}

// BenchmarkSyscall: one op is getppid(2), which the kernel answers at once and
// no library remembers.
//
//   - lwp: unix.RawSyscall on a thread.
//   - goroutine: unix.Syscall, which tells the scheduler before and after.
//   - pthread: syscall(3), in C.
func BenchmarkSyscall(b *testing.B) { compare(b, syscallRows) }

var syscallRows = []row{
	{"impl=lwp", func(b *testing.B) error { return onThread(b, getppidOnThread) }},
	{"impl=goroutine", getppidOnGoroutine},
	{"impl=pthread", inC("syscall")},
}

func getppidOnThread(j *job) {
	parent, _, _ := unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
	j.pass()
	good := 0
	for range j.n {
		if p, _, _ := unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); p == parent {
			good++
		}
	}
	j.good = good
}

func getppidOnGoroutine(b *testing.B) error {
	parent, good := uintptr(unix.Getppid()), 0
	for b.Loop() {
		if p, _, _ := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0); p == parent {
			good++
		}
	}
	return did(good, b.N)
}
