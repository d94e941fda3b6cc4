package store_test

import "os"

// inChild reports whether this process was started by a test, to be killed or
// to run where the test itself must not.
func inChild() bool { return os.Getenv("KEYTURN_TEST_CHILD") != "" }
