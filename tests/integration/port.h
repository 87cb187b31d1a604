/* SPDX-License-Identifier: Apache-2.0 */
/**
 * port.h - a place to listen on
 */
#ifndef TEST_PORT_H
#define TEST_PORT_H

/* of 127.0.0.1, that nobody listens on, and that no other process is given by chance */
unsigned test_free_port(void);

#endif
