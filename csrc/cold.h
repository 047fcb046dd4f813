/* What mypyc's code calls only where something has failed. Included before each of its files, so that the compiler moves
   the way there (a third of the code) behind what a request runs through.

   The declarations name no parameters, since those are mypyc's to change; C23 takes that for functions without any. */

#if __STDC_VERSION__ <= 201710L
void CPy_AddTraceback() __attribute__((cold));
void CPy_AttributeError() __attribute__((cold));
void CPy_TypeError() __attribute__((cold));
void CPy_TypeErrorTraceback() __attribute__((cold));
#endif
