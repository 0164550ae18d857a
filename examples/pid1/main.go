// Command pid1 makes a process that is the first of its PID namespace, as in a
// container: process 1, with its own mounts and its own root user.
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
)

var (
	slash  = []byte("/\x00")
	proc   = []byte("/proc\x00")
	procFS = []byte("proc\x00")
)

// first is process 1. It is freestanding, and prints with Line.
func first(*struct{}) int {
	var l lwp.Line
	l.Str("child: I am process ").Int(id(unix.SYS_GETPID)).Str(", my parent is ").Int(id(unix.SYS_GETPPID)).
		Str(" (it is in another namespace), my user is ").Int(id(unix.SYS_GETUID)).Print()

	// Mounts here must not reach the parent's namespace; then /proc can show
	// the processes of this one.
	if errno := mount(nil, slash, nil, unix.MS_REC|unix.MS_PRIVATE); errno != 0 {
		l.Str("child: making mounts private fails with errno ").Int(int64(errno)).Print()
		return 1
	}
	if errno := mount(procFS, proc, procFS, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC); errno != 0 {
		l.Str("child: mounting /proc fails with errno ").Int(int64(errno)).Str(": the one that is here has parts hidden, as in a container").Print()
	} else {
		l.Str("child: a /proc of my own lists ").Int(int64(processes())).Str(" process").Print()
	}

	// Who loses its parent becomes process 1's child.
	orphans := 0
	p, err := lwp.Fork(lwp.ProcessAttr{})
	if err != nil {
		return 2
	}
	if p.IsChild() {
		q, err := lwp.Fork(lwp.ProcessAttr{})
		if err == nil && q.IsChild() {
			for range 100 { // until the middle one is gone
				if id(unix.SYS_GETPPID) == 1 {
					break
				}
				lwp.Sleep(10e6)
			}
			l.Str("grandchild: I am process ").Int(id(unix.SYS_GETPID)).Str(", my parent has ended, now it is process ").Int(id(unix.SYS_GETPPID)).Print()
		}
		lwp.ExitProcess(0)
	}
	if _, err := p.Wait(); err != nil {
		return 3
	}
	for {
		var status int32
		pid, _, errno := unix.RawSyscall6(unix.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&status)), 0, 0, 0, 0)
		if errno == unix.ECHILD {
			break
		}
		if errno == 0 && pid > 0 {
			orphans++
		}
	}
	l.Str("child: as process 1 I have collected ").Int(int64(orphans)).Str(" orphan").Print()
	return 42
}

func id(trap uintptr) int64 {
	r, _, _ := unix.RawSyscall(trap, 0, 0, 0)
	return int64(r)
}

func mount(source, target, fstype []byte, flags uintptr) syscall.Errno {
	var src, kind uintptr
	if source != nil {
		src, kind = uintptr(unsafe.Pointer(&source[0])), uintptr(unsafe.Pointer(&fstype[0]))
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_MOUNT, src, uintptr(unsafe.Pointer(&target[0])), kind, flags, 0, 0)
	return errno
}

// processes counts the entries of /proc that are numbers.
func processes() (n int) {
	here := unix.AT_FDCWD
	fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, uintptr(here), uintptr(unsafe.Pointer(&proc[0])), unix.O_RDONLY|unix.O_DIRECTORY, 0, 0, 0)
	if errno != 0 {
		return -1
	}
	var buf [4096]byte
	for {
		got, _, errno := unix.RawSyscall(unix.SYS_GETDENTS64, fd, uintptr(unsafe.Pointer(&buf)), unsafe.Sizeof(buf))
		if errno != 0 || got == 0 {
			break
		}
		for at := uintptr(0); at < got; {
			d := (*unix.Dirent)(unsafe.Pointer(&buf[at]))
			if c := d.Name[0]; '0' <= c && c <= '9' {
				n++
			}
			at += uintptr(d.Reclen)
		}
	}
	unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	return n
}

func run() error {
	fmt.Println("The child gets new namespaces of processes, mounts and users, and is root in the last.")
	p, err := lwp.StartProcess(first, new(struct{}), lwp.ProcessAttr{
		Flags:  lwp.CloneNewPID | lwp.CloneNewNS | lwp.CloneNewUser,
		AsRoot: true,
	})
	if err != nil {
		return err
	}
	fmt.Printf("parent: to me it is process %d\n", p.PID())
	state, err := p.Wait()
	if err != nil {
		return err
	}
	fmt.Printf("parent: it ended with %v, and with it its namespace\n", state)
	if state.ExitCode() != 42 {
		return errors.New("the child did not get to its end")
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
			fmt.Println("This program needs a kernel that gives user namespaces to this user, user", os.Geteuid())
		}
		log.Fatal("pid1: ", err)
	}
}
