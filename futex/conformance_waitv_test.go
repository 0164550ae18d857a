package futex_test

import (
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/futex"
)

// rawWaitv is futex_waitv(2) itself.
func rawWaitv(words unsafe.Pointer, n, flags uintptr, ts *unix.Timespec, clock uintptr) syscall.Errno {
	const sysFutexWaitv = 449
	_, _, errno := unix.Syscall6(sysFutexWaitv, uintptr(words), n, flags, uintptr(unsafe.Pointer(ts)), clock, 0)
	return errno
}

// rawWord is struct futex_waitv.
type rawWord struct {
	val   uint64
	addr  unsafe.Pointer
	flags uint32
	zero  uint32
}

const size32 = 2 // FUTEX_32

func futexWaitv01(t *testing.T) {
	needWaitv(t)
	x := new([2]uint32)
	good := rawWord{addr: unsafe.Pointer(x), flags: size32}
	ts := &unix.Timespec{}
	for what, k := range map[string]struct {
		word  rawWord
		n     uintptr
		flags uintptr
		ts    *unix.Timespec
		clock uintptr
		want  syscall.Errno
	}{
		"good":            {good, 1, 0, ts, unix.CLOCK_MONOTONIC, syscall.ETIMEDOUT},
		"flags of a word": {rawWord{addr: unsafe.Pointer(x), flags: ^uint32(0)}, 1, 0, ts, unix.CLOCK_MONOTONIC, syscall.EINVAL},
		"reserved":        {rawWord{addr: unsafe.Pointer(x), flags: size32, zero: 1}, 1, 0, ts, unix.CLOCK_MONOTONIC, syscall.EINVAL},
		"unaligned":       {rawWord{addr: unsafe.Add(unsafe.Pointer(x), 1), flags: size32}, 1, 0, ts, unix.CLOCK_MONOTONIC, syscall.EINVAL},
		"no size":         {rawWord{addr: unsafe.Pointer(x)}, 1, 0, ts, unix.CLOCK_MONOTONIC, syscall.EINVAL},
		"flags":           {good, 1, 1, ts, unix.CLOCK_MONOTONIC, syscall.EINVAL},
		"none":            {good, 0, 0, ts, unix.CLOCK_MONOTONIC, syscall.EINVAL},
		"too many":        {good, futex.MaxWaitv + 1, 0, ts, unix.CLOCK_MONOTONIC, syscall.EINVAL},
		"clock":           {good, 1, 0, ts, unix.CLOCK_BOOTTIME, syscall.EINVAL},
		"timeout":         {good, 1, 0, &unix.Timespec{Nsec: 1e9}, unix.CLOCK_MONOTONIC, syscall.EINVAL},
		"NULL word":       {rawWord{flags: size32}, 1, 0, ts, unix.CLOCK_MONOTONIC, syscall.EFAULT},
	} {
		words := make([]rawWord, futex.MaxWaitv+1)
		words[0] = k.word
		if errno := rawWaitv(unsafe.Pointer(&words[0]), k.n, k.flags, k.ts, k.clock); errno != k.want {
			t.Errorf("%s: %v, want %v", what, errno, k.want)
		}
	}
	_, _, err := futex.Waitv(nil, futex.Never)
	refused(t, "no words", err, syscall.EINVAL)
	_, _, err = futex.Waitv(make([]futex.Word, futex.MaxWaitv+1), futex.Never)
	refused(t, "too many words", err, syscall.EINVAL)
	_, _, err = futex.Waitv([]futex.Word{futex.Private.On((*uint32)(unsafe.Add(unsafe.Pointer(x), 2)), 0)}, futex.Never)
	refused(t, "unaligned word", err, syscall.EINVAL)
}

// wokenByIndex waits on as many words as there can be, and wakes each once.
func wokenByIndex(t *testing.T, s futex.Scope) {
	needWaitv(t)
	words := new([futex.MaxWaitv]uint32)
	list := make([]futex.Word, len(words))
	for i := range words {
		list[i] = s.On(&words[i], 0)
	}
	for _, i := range []int{0, 1, 29, 64, len(words) - 1} {
		got := make(chan int, 1)
		c := newCrew(t)
		c.start(func() {
			index, out, err := futex.Waitv(list, futex.After(hang))
			expect(t, futex.Woken, out, err)
			got <- index
		})
		eventually(t, "a waiter", func() bool { n, _ := s.Requeue(&words[0], &words[0], 0, futex.All); return n == 1 })
		eventually(t, "a wake", func() bool { n, err := s.Wake(&words[i], 1); return n == 1 && err == nil })
		if index := <-got; index != i {
			t.Errorf("word %d was woken, Waitv says %d", i, index)
		}
	}
}

func futexWaitv03(t *testing.T) {
	needWaitv(t)
	t.Run("threads", func(t *testing.T) { wokenByIndex(t, futex.Shared) })
	t.Run("processes", func(t *testing.T) { wokenByIndexBetweenProcesses(t) })
}

func init() {
	roles["waitAny"] = func(c *common) int {
		var list [30]futex.Word
		for i := range list {
			list[i] = futex.Shared.On(&c.word[i], 0)
		}
		for {
			index, out, err := futex.Waitv(list[:], futex.Never)
			if err != nil || out == futex.Changed || out == futex.TimedOut {
				return 1
			}
			if out == futex.Woken {
				c.plain = index
				return 0
			}
		}
	}
}

// wokenByIndexBetweenProcesses has another process wait for any of 30 words.
func wokenByIndexBetweenProcesses(t *testing.T) {
	for _, i := range []int{0, 17, 29} {
		c, file := newCommon(t)
		c.plain = -1
		cmd := spawn(t, file, "waitAny")
		eventually(t, "a process to wait", func() bool { n, _ := futex.Shared.Wake(&c.word[i], 1); return n == 1 })
		ended(t, cmd)
		if c.plain != i {
			t.Errorf("word %d was woken, the process says %d", i, c.plain)
		}
	}
}
