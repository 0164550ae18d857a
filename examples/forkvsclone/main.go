// Command forkvsclone makes the pair of programs of every tutorial on clone: a
// child changes a variable, closes a file and goes to another directory. What
// the parent sees of that depends on the flags, and on nothing else.
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

// A world is what parent and child may have in common.
type world struct {
	variable int
	fd       int // of a file that both know
	root     [2]byte
}

// child runs in the new process. It is freestanding: bare system calls only.
func child(w *world) int {
	w.variable = 42
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOSE, uintptr(w.fd), 0, 0); errno != 0 {
		return 1
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(&w.root)), 0, 0); errno != 0 {
		return 2
	}
	return 0
}

// A sight is what the parent finds when the child has ended.
type sight struct {
	variable int
	closed   bool
	moved    bool
}

// try makes a child with flags and looks at what it has left.
func try(flags lwp.Flags) (s sight, err error) {
	home, err := os.Open(".")
	if err != nil {
		return s, err
	}
	defer home.Close()
	before, err := os.Getwd()
	if err != nil {
		return s, err
	}
	fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return s, err
	}
	w := &world{variable: 1, fd: fd, root: [2]byte{'/', 0}}
	p, err := lwp.StartProcess(child, w, lwp.ProcessAttr{Flags: flags})
	if err != nil {
		unix.Close(fd)
		return s, err
	}
	state, err := p.Wait()
	if err == nil && state.ExitCode() != 0 {
		err = fmt.Errorf("the child ended with %v", state)
	}
	s.variable = w.variable
	s.closed = unix.Close(fd) == unix.EBADF
	now, _ := unix.Getwd()
	s.moved = now != before
	return s, errors.Join(err, home.Chdir())
}

func (s sight) String() string {
	file, dir := "open", "where it was"
	if s.closed {
		file = "closed"
	}
	if s.moved {
		dir = "/"
	}
	return fmt.Sprintf("variable %2d, file %-6s, directory %s", s.variable, file, dir)
}

func run() error {
	if err := os.Chdir(os.TempDir()); err != nil { // a directory that is not /
		return err
	}
	fmt.Print("The parent has a variable that is 1, and a file that is open. The child sets the\n" +
		"variable to 42, closes the file, goes to the directory /, and ends.\n\n")
	for i, c := range []struct {
		name  string
		flags lwp.Flags
	}{
		{"fork: clone(2) without a flag", 0},
		{"clone(2) with CLONE_VM and CLONE_FILES", lwp.CloneVM | lwp.CloneFiles},
	} {
		s, err := try(c.flags)
		if err != nil {
			return err
		}
		fmt.Printf("%d. %s. Then the parent finds:\n   %v\n\n", i+1, c.name, s)
	}
	fmt.Print("Fork copies memory and the descriptor table; what the child does to its copies\n" +
		"is its own affair. Each flag has a part shared in place of copied:\n\n")
	parts := []lwp.Flags{lwp.CloneVM, lwp.CloneFiles, lwp.CloneFS}
	fmt.Printf("   %-34s the parent finds\n", "flags")
	for set := range 1 << len(parts) {
		var flags lwp.Flags
		for i, f := range parts {
			if set&(1<<i) != 0 {
				flags |= f
			}
		}
		s, err := try(flags)
		if err != nil {
			return err
		}
		fmt.Printf("   %-34v %v\n", flags, s)
	}
	fmt.Print("\nWith all of these, CLONE_SIGHAND and CLONE_THREAD, the child is what is called a\n" +
		"thread: clone(2) makes both, and everything between.\n")
	return nil
}

func main() {
	err := run()
	if errors.Is(err, syscall.EINVAL) {
		fmt.Print("\nThis program needs clone(2) to make a process that shares memory. Linux does;\n" +
			"qemu-user, for one, refuses with EINVAL.\n")
	}
	if err != nil {
		log.Fatal("forkvsclone: ", err)
	}
}
