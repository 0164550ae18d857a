package lwp

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"lwprt/asm"
)

// KcmpType is what Kcmp compares.
type KcmpType int

const (
	KcmpFile    KcmpType = iota // an open file: descriptor a of the one, b of the other
	KcmpVM                      // memory, CLONE_VM
	KcmpFiles                   // descriptor table, CLONE_FILES
	KcmpFS                      // working directory, root and umask, CLONE_FS
	KcmpSighand                 // signal handlers, CLONE_SIGHAND
	KcmpIO                      // I/O context, CLONE_IO
	KcmpSysvsem                 // semaphore adjustments, CLONE_SYSVSEM
)

// Kcmp says whether two tasks, by their IDs, share the kernel's object of that
// type: 0 where they do. Otherwise the result is 1 or 2, an order of objects
// that is good to sort by, or 3 where the two differ without one.
//
// Context: goroutine or thread.
// Errors: *Error: ENOSYS where the kernel is built without; ESRCH; EPERM
// without the right to trace both; EBADF; EINVAL.
// Source: kcmp(2).
func Kcmp(task1, task2 int, what KcmpType, a, b uintptr) (int, error) {
	r, _, errno := unix.RawSyscall6(unix.SYS_KCMP, uintptr(task1), uintptr(task2), uintptr(what), a, b, 0)
	if errno != 0 {
		return -1, failed(opKcmp, errno)
	}
	return int(r), nil
}

// A Shares says what two tasks share.
type Shares struct {
	Tasks [2]int

	VM, FS, Files, Sighand, IO, Sysvsem bool

	// Open are the descriptors of the first task, and Same those that are the
	// same open file in the second: with one offset, as after fork or dup.
	Open, Same []int

	// Namespaces are the kinds of /proc/PID/ns, and whether they are the same.
	Namespaces map[string]bool
}

// Sharing returns what the calling task, a goroutine's thread, shares with another.
//
// Context: goroutine.
// Errors: as Kcmp; ErrHosted on a thread.
func Sharing(task int) (Shares, error) {
	if asm.Current() != nil {
		return Shares{}, ErrHosted
	}
	return SharingOf(unix.Gettid(), task)
}

// SharingOf returns what two tasks share. What changes meanwhile may be seen
// either way.
//
// Context: goroutine.
// Errors: as Kcmp; ErrHosted on a thread; those of reading /proc.
func SharingOf(task1, task2 int) (Shares, error) {
	s := Shares{Tasks: [2]int{task1, task2}, Namespaces: map[string]bool{}}
	if asm.Current() != nil {
		return s, ErrHosted
	}
	for what, to := range map[KcmpType]*bool{KcmpVM: &s.VM, KcmpFiles: &s.Files, KcmpFS: &s.FS,
		KcmpSighand: &s.Sighand, KcmpIO: &s.IO, KcmpSysvsem: &s.Sysvsem} {
		order, err := Kcmp(task1, task2, what, 0, 0)
		if err != nil {
			return s, err
		}
		*to = order == 0
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", task1))
	if err != nil {
		return s, err
	}
	for _, e := range fds {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		order, err := Kcmp(task1, task2, KcmpFile, uintptr(fd), uintptr(fd))
		if errno, ok := err.(*Error); ok && errno.Errno == syscall.EBADF {
			// One of the two does not have it: the first only if it was that of ReadDir.
			if _, err := Kcmp(task1, task1, KcmpFile, uintptr(fd), uintptr(fd)); err != nil {
				continue
			}
			order, err = 3, nil
		} else if err != nil {
			return s, err
		}
		s.Open = append(s.Open, fd)
		if order == 0 {
			s.Same = append(s.Same, fd)
		}
	}
	slices.Sort(s.Open)
	slices.Sort(s.Same)
	return s, s.namespaces()
}

func (s *Shares) namespaces() error {
	kinds, err := os.ReadDir(fmt.Sprintf("/proc/%d/ns", s.Tasks[0]))
	if err != nil {
		return err
	}
	for _, k := range kinds {
		var at [2]string
		for i, task := range s.Tasks {
			if at[i], err = os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", task, k.Name())); err != nil {
				break
			}
		}
		if err == nil {
			s.Namespaces[k.Name()] = at[0] == at[1]
		}
	}
	return nil
}

// String returns a table, a line for each kind of thing.
func (s Shares) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "tasks %d and %d\n", s.Tasks[0], s.Tasks[1])
	row := func(what string, shared bool) {
		word := "separate"
		if shared {
			word = "shared"
		}
		fmt.Fprintf(&b, "  %-22s %s\n", what, word)
	}
	row("memory", s.VM)
	row("descriptor table", s.Files)
	row("directory, root, umask", s.FS)
	row("signal handlers", s.Sighand)
	row("I/O context", s.IO)
	row("semaphore adjustments", s.Sysvsem)
	fmt.Fprintf(&b, "  %-22s %d of %d\n", "open files in common", len(s.Same), len(s.Open))
	kinds := make([]string, 0, len(s.Namespaces))
	for k := range s.Namespaces {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	for _, k := range kinds {
		row("namespace "+k, s.Namespaces[k])
	}
	return b.String()
}
