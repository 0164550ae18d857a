// Command newuts has a child change the name of the host, in a namespace of its
// own. The parent's stays as it was.
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/futex"
	"lwprt/lwp"
)

// A stage is memory that parent and child share: MAP_SHARED, since the rest is a copy.
type stage struct {
	name   [65]byte
	host   [65]byte // what the child finds afterwards
	errno  uint32
	up     uint32
	depart uint32
}

// child renames its host, and stays until the parent has looked.
func child(s *stage) int {
	n := 0
	for s.name[n] != 0 {
		n++
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SETHOSTNAME, uintptr(unsafe.Pointer(&s.name)), uintptr(n), 0)
	s.errno = uint32(errno)
	var u unix.Utsname
	unix.RawSyscall(unix.SYS_UNAME, uintptr(unsafe.Pointer(&u)), 0, 0)
	s.host = u.Nodename
	s.up = 1
	futex.Shared.Wake(&s.up, futex.All)
	for s.depart == 0 {
		futex.Shared.Wait(&s.depart, 0)
	}
	return 0
}

func run() error {
	mem, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer unix.Munmap(mem)
	s := (*stage)(unsafe.Pointer(&mem[0]))
	copy(s.name[:], "inside")

	attr := lwp.ProcessAttr{Flags: lwp.CloneNewUTS}
	if os.Geteuid() == 0 {
		fmt.Println("The child is made with CLONE_NEWUTS; this program runs as root.")
	} else {
		attr.Flags |= lwp.CloneNewUser
		attr.AsRoot = true
		fmt.Println("The child is made with CLONE_NEWUTS, and CLONE_NEWUSER: in a user namespace of its\nown it may do what takes root, to what belongs there.")
	}
	before, err := os.Hostname()
	if err != nil {
		return err
	}
	p, err := lwp.StartProcess(child, s, attr)
	if err != nil {
		return err
	}
	for s.up == 0 {
		futex.Shared.Wait(&s.up, 0)
	}
	after, err := os.Hostname()
	ours, _ := os.Readlink("/proc/self/ns/uts")
	its, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/uts", p.PID()))
	fmt.Printf("parent, before:   host %s\n", before)
	fmt.Printf("child %d: host %s, in %s\n", p.PID(), unix.ByteSliceToString(s.host[:]), its)
	fmt.Printf("parent, meanwhile: host %s, in %s\n", after, ours)
	s.depart = 1
	futex.Shared.Wake(&s.depart, futex.All)
	state, waitErr := p.Wait()
	fmt.Printf("child ended with %v; its namespace went with it\n", state)
	if s.errno != 0 {
		err = fmt.Errorf("sethostname: %w", syscall.Errno(s.errno))
	}
	return errors.Join(err, waitErr)
}

func main() {
	if err := run(); err != nil {
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
			fmt.Println("This program needs CAP_SYS_ADMIN, or a kernel that gives ordinary users user namespaces.")
		}
		log.Fatal("newuts: ", err)
	}
}
