/* kernel/drivers/drivers.h: finds and starts all devices, once. Called by: main.c, after paging_init. */
#ifndef DRIVERS_DRIVERS_H
#define DRIVERS_DRIVERS_H
/* dma_alloc: zeroed, physically contiguous pages in the direct map, for queues; never freed. */
int drivers_init(void *(*dma_alloc)(unsigned page_count));
#endif
