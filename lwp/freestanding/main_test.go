package freestanding

import (
	"errors"
	"fmt"
	"os"
	"testing"
)

// Under a detector there is nothing to check but that Check says so.
func TestMain(m *testing.M) {
	if instrumented {
		if _, err := Check(TestMain); !errors.Is(err, ErrRace) {
			fmt.Println("Check in an instrumented program:", err)
			os.Exit(1)
		}
		fmt.Println("instrumented program: nothing can be checked")
		os.Exit(0)
	}
	os.Exit(m.Run())
}
